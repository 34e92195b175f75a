"""Tables of caption words: what closes a noun phrase, what is a verb, what a being, what takes a colour back.

They hold what captions of photos use, not the language; a word that is missing costs a phrase, not an error.
"""

import re

from lcad.text.color_expressions import word_set

ARTICLES = word_set("a an the his her its their another")
DETERMINERS = ARTICLES | word_set("this that these those my your our each every some one")
COUNTS = word_set("one two three four five other others another")
LINKS = word_set("is are was were be being that which painted colored coloured dyed turned appears glows lit")
"""Before a colour that is said of the noun before them."""
WEARS = word_set("in wearing wears wear wore dressed clad waring")  # said of a person
CLOTHED = word_set("dressed clothed clad adorned attired uniformed")
CLAUSES = word_set(", ; and while as but where that which who because")  # a new clause begins behind these
DEGREES = word_set("all mostly only very entirely completely solid partly partially both some")
_CLOSERS = word_set(
    """i he she it they we you him them who whom what where when while whilst because if as than then so but nor yet
    either whose and or of on at by to for from with without into onto upon over under above below beneath
    underneath behind beside besides between among amongst amid along alongside across around about near nearby
    next against through throughout toward towards past during before after inside outside up down off out away
    back forward together apart aside alone ahead indoors outdoors overhead upside atop like via per except
    within until till since there here not no has have had having do does did done could will would may might
    must should to too also just very still even once again ever already almost all both other others half nearly
    quite rather instead please sideways downhill uphill upright midair airborne asleep awake onstage backstage left
    right stood sat lay laid ran held got went came took gave made shot saw seen shown taken worn driven ridden thrown
    caught cut hung swung swam built sold stuck fallen such more most am been versus vs"""
)
STOPS = DETERMINERS | LINKS | WEARS | _CLOSERS  # a noun phrase ends before these
BEINGS = word_set(  # they wear colours, and an "-s" word behind them is a verb; so are words in "-er", "-or", "-ist"
    """boy boys girl girls child children kid kids baby babies infant person people lady ladies guy guys male males
    female females adult adults teen teens team teams couple crowd group family someone friend friends bride
    groom goalie coach athlete athletes gymnast musician musicians clown jockey cowboy student students fan fans
    monk nurse model worshipper dog dogs puppy puppies cat cats kitten horse horses greyhound greyhounds poodle
    labrador lab collie bulldog hound pup animal cow elephant giraffe zebra goat bear doll bird one"""
)
THINGS = word_set(  # in spite of "-er" and "-or"
    """water flower flowers paper papers river sweater sweaters corner center counter shoulder summer winter tower
    motor door doors floor floors color colors colour leather feather ladder number letter letters banner
    scooter poster container trailer mirror other another together over under after near her or our for ever
    computer cover roller soccer silver copper fur super sneaker sneakers slipper slippers trouser trousers
    powder rubber tractor stroller diaper helicopter decker older younger inner outer indoor outdoor
    smaller larger bigger recolor recolour"""
)
PLURALS = word_set("men women people children teeth feet geese mice")
SINGULARS = word_set("tennis canvas lens sports christmas gas adidas las gymnastics graphics")  # in spite of "-s"
VERBS = word_set(
    """run jump stand walk sit look hold carry catch swim chase get splash smile pose go take make begin lay lie shake
    dance follow pull try hit lean roll emerge crouch sniff chew wear give throw fly frolic appear prepare bite
    eat say retrieve raise bound laugh balance dribble travel hang sleep pounce relax jog attempt stare talk pass
    trot sprint push perform practice practise dig dive aim peek tackle snarl put bark leave wrestle reach graze
    fall growl fetch lick open grind shoot wade approach break grab investigate capture help observe peer move
    descend bring gaze apply exit pick lunge tug crawl hope receive stretch swerve gnaw want fight wander wait
    suck dash teach beg cling stride compete blow read kneel enjoy touch sing pour lead use bend come speak squat
    rub pause write listen hike react wipe embrace fling drag cry gather examine pretend struggle clutch bounce
    tease remove enter become ascend shout collect fix tell check feed start tussle romp huddle share participate
    collide meet celebrate hug keep seem gallop toss perch roam contain overlook surround hover cook serve score
    defend kick watch play ride climb leap swing slide ski surf skate snowboard race drink drive paddle cross
    turn rest stop show face point spin step press punch tread return block pitch float lift sled cover wave work
    bike speed grin hide smoke juggle wink untangle brandish direct submerge challenge exercise grapple interact
    support land"""
)
NOUNS_TOO = word_set(  # verbs that after a colour are rather nouns: "swim trunks", "a red slide"
    """swim dance fly dive ride climb swing slide ski surf skate snowboard race drink drive paddle cross turn rest stop
    show face point spin step press punch pitch float lift sled cover wave watch work hang leap kick bike speed"""
)
ING_NOUNS = word_set(
    """building ceiling clothing railing awning wing ring string spring swing sling king painting stocking frosting
    icing earring evening morning thing something anything wedding landing opening crossing clearing flooring
    siding lighting lightning dressing pudding topping marking lettering seating writing covering coloring roping
    watering drawing fencing bedding padding trimming lining netting"""
)
GEAR = word_set(  # behind an "-ing" word: "bathing suit", "climbing wall"
    """suit suits trunks shorts pool pools gear helmet helmets glove gloves wall lot cart uniform uniforms outfit
    outfits shoe shoes jersey jerseys jacket jackets pants shirt shirts hat hats cap cape vest board boards boot
    boots room bag machine equipment car cars bike track course ring mat costume costumes attire clothes goggles
    boat pole poles rope rock field hood rink dress tights stick sticks"""
)
ED_ING_NOUNS = ING_NOUNS | word_set(
    "bed shed sled weed seaweed seed breed speed tweed moped thoroughbred steed bobsled"
)
LY_NOUNS = word_set("curly ugly woolly frilly silly lovely family jelly belly fly butterfly lily trolley hilly")
ADJECTIVES = word_set(
    """big small large little long short tall young old furry fluffy hairy shaggy plaid fuzzy shiny dirty wet curly thin
    fat huge tiny clear bright dark floral grassy cloudy snowy sandy smaller larger bigger colorful wooden plastic metal
    outdoor indoor older younger outer inner high low fast hard backward backwards multi tri"""
)
WORN = re.compile(r"(shirt|jacket|hat|coat|dress|suit|vest|sweater|uniform|outfit|cap|jersey|helmet|skirt|top)$")
PHOTOS = word_set(  # they show the objects and are none: "a black and white photo"
    """photo photos photograph photographs photography picture pictures pic image images film films print prints
    snapshot snapshots polaroid footage"""
)
HUES = word_set("color colour colors colours hue hues")
NO_NOUNS = STOPS | ADJECTIVES | COUNTS | DEGREES | HUES | word_set("top bottom middle center centre side front air far")
MOTION = word_set("down up through along around together towards toward into across past away off over")  # behind verbs
NOT_COLORS = re.compile(  # colour words that say no colour
    r"\b(?:[Rr]ed (?:[Ss]ox|[Bb]ull)|[Gg]reen [Bb]ay|White House|orange (?:juice|slices?|peels?)|ice cream)\b"
)

NEGATIONS = word_set("no not non never without neither nor none nobody nothing lacking lacks unlike sans")
NEGATIONS_OF_SEVERAL = frozenset(
    {("instead", "of"), ("rather", "than"), ("in", "place", "of"), ("anything", "but")}
    | {("as", "opposed", "to"), ("free", "of"), ("no", "longer")}
)
RUN_TOGETHER = {"cannot": "can", "isnt": "is", "arent": "are", "dont": "do", "doesnt": "does"}  # with a "not"
AFFIRMED = word_set("only just merely simply but")  # behind a negation: "not only red"
BARE_NEGATIONS = word_set("no none nobody nothing neither")  # of a noun that wears its colour: "no man in red"
CLAUSE_ENDS = word_set(". ; : ? ! - – — but while whereas though although ( ) [ ] { }")
HEDGES = word_set("maybe perhaps possibly probably might may could")
REQUESTS = word_set(  # they give a thing another colour: "turn the car red"
    """make turn change paint colour color dye recolor recolour tint colorize colourize set switch convert render
    replace swap"""
)
OF_REQUESTS = DETERMINERS | word_set("to into with from of all both")  # inside them
WISHES = word_set("would i we you they look looks looked looking")  # before a "like" that compares nothing
PICTURED = word_set("shot filmed photographed printed pictured taken")  # before "in black and white"
TITLES = word_set("mr mrs ms miss dr prof sir mister madam")
PARTS_ED = word_set(  # the colour is a part's, that has no word of its own: "a blue-eyed girl"
    """eyed nosed lipped cheeked legged footed tailed winged beaked breasted bellied faced eared pawed roofed shuttered
    rimmed trimmed tipped framed edged bordered handled wheeled walled gloved booted hatted capped bearded"""
)
WHOLES_ED = word_set(  # the colour is the whole thing's: "a red-haired girl", "a white-washed house"
    """haired headed colored coloured tinted painted toned hued dyed clad dressed robed uniformed striped spotted dotted
    checked checkered patterned coated furred skinned washed plated stained glazed"""
)
FOREIGN_OR_NAMES = word_set("la de en y e o da na di un le el las los auto casa rosa rot negro im med")
"""They stand in English captions too ("Los Angeles"): one alone says little."""
FOREIGN = FOREIGN_OR_NAMES | word_set(  # of French, Spanish, Portuguese, Italian, German, Dutch; no English words
    """un une les des du et avec dans est aux sous près homme femme chien ciel maison voiture unos con del sobre mujer
    hombre cielo coche gli uno della nel uomo donna um uma com os mulher homem carro ein eine einen einem einer eines
    der das und mit auf ist vor neben mann frau het een naast onder och rouge rouges vert verte bleu bleue blanc
    blanche noir noire jaune rojo roja verde azul amarillo blanco blanca gris rote roter rotes roten blau blaue blaues
    blauen grün grüne grünes gelb gelbe gelbes schwarz schwarze weiß weiße weiss rosso rossa giallo gialla bianco
    bianca nero nera vermelho preto branco rood rode blauw blauwe groen groene geel zwart zwarte brun brune marron"""
)
ENGLISH = word_set(
    """a the of with and on is are at by to for from an his her their its this that one two some wearing has have my
    your it or as between under over near behind white black red blue green yellow brown grey gray pink purple"""
)


def is_being(text: str) -> bool:
    """May the word be a person or an animal: "boy", "dancer"?"""
    ending = text.endswith(("er", "ers", "or", "ors", "ist", "ists", "man", "men"))
    return text in BEINGS or ending and text not in THINGS


def is_verb(text: str) -> bool:
    """ "runs", "catches" or "carries"."""
    return text.endswith("s") and bool({text[:-1], text.removesuffix("es"), text.removesuffix("ies") + "y"} & VERBS)
