// A canvas over a picture. The value is what is drawn: [{"width": w, "points": [[x, y], ...]}, ...] as JSON, all in
// shares: places of the picture's width and height, widths of its long side. An empty value takes everything away.
const image = element.querySelector("img"), canvas = element.querySelector("canvas");
const brush = element.querySelector("input"), pen = canvas.getContext("2d");
let strokes = [], pointer = null;

const line = (points, width) => {
    pen.lineWidth = width * Math.max(canvas.width, canvas.height);
    pen.beginPath();
    const places = points.map(([x, y]) => [x * canvas.width, y * canvas.height]);
    pen.moveTo(places[0][0] - 0.01, places[0][1]);  // a line of no length would not be drawn
    places.forEach(([x, y]) => pen.lineTo(x, y));
    pen.stroke();
};
const show = () => {
    canvas.width = image.naturalWidth;  // empties it
    canvas.height = image.naturalHeight;
    pen.lineCap = pen.lineJoin = "round";
    pen.strokeStyle = getComputedStyle(canvas).color;
    strokes.forEach(({points, width}) => line(points, width));
};
const keep = kept => {
    strokes = kept;
    props.value = strokes.length ? JSON.stringify(strokes) : "";
    show();
};
const place = event => {
    const box = canvas.getBoundingClientRect();
    const shares = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return shares.map(share => +Math.min(1, Math.max(0, share)).toFixed(4));
};

canvas.onpointerdown = event => {
    if (pointer !== null || event.button) return;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    const points = [place(event)], width = brush.value / 1000;
    strokes.push({width, points});
    line(points, width);
};
canvas.onpointermove = event => {
    if (event.pointerId !== pointer) return;
    const {points, width} = strokes.at(-1), [x, y] = points.at(-1), next = place(event);
    if (Math.hypot(next[0] - x, next[1] - y) < 0.002) return;
    points.push(next);
    line(points.slice(-2), width);
};
canvas.onpointerup = canvas.onpointercancel = event => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    keep(strokes);
};
element.querySelector("[data-do=undo]").onclick = () => keep(strokes.slice(0, -1));
element.querySelector("[data-do=clear]").onclick = () => keep([]);

const photo = () => { if (props.photo) image.src = props.photo; };
image.onload = show;
watch("photo", photo);
watch("value", () => { if (!props.value) keep(pointer === null ? [] : strokes.slice(-1)); });  // not under the hand
photo();
