"""The optimizer's schedule in closed form, noise that a resumed run draws again, and what a checkpoint leaves out."""

import math
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import Timer
from torch import nn

from lcad.training.optimization import build_optimizer, clip_gradients, only_trained_weights, step_generator, time_share
from lcad.training.trainer import Rate


class ClockedTimer(Timer):
    """A timer of 100 s whose clock is set by hand."""

    def __init__(self, elapsed: float):
        super().__init__({"seconds": 100})
        self.elapsed = elapsed

    def time_elapsed(self, stage: str = "train") -> float:
        return self.elapsed


class Stage(nn.Module):
    def __init__(self, steps: float, *callbacks):
        super().__init__()
        self.trained, self.frozen = nn.Linear(2, 2), nn.BatchNorm1d(2).requires_grad_(False)
        progress = SimpleNamespace(total_batch_idx=5)
        self.trainer_config = SimpleNamespace(seed=3)
        self.trainer = SimpleNamespace(
            estimated_stepping_batches=steps,
            callbacks=list(callbacks),
            strategy=SimpleNamespace(broadcast=lambda value: value),
            fit_loop=SimpleNamespace(epoch_loop=progress),
            global_rank=0,
        )


def rates(stage: Stage, count: int, final: float | None, warmup: int = 0) -> list[float]:
    built = build_optimizer(stage, 2.0, final, warmup)
    optimizer, schedule = built["optimizer"], built["lr_scheduler"]["scheduler"]
    assert built["lr_scheduler"]["interval"] == "step"
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_warm_up_and_cosine_decay():
    found = rates(Stage(110), 130, 0.4, warmup=10)
    assert found[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    decay = [0.4 + 1.6 * (1 + math.cos(math.pi * done / 100)) / 2 for done in range(100)]
    assert found[10:110] == pytest.approx(decay) and found[110:] == pytest.approx([0.4] * 20)
    assert found[10] == 2 and found[60] == pytest.approx(1.2), "half of the way at half of the time"


@pytest.mark.parametrize("steps, final", [(20, None), (math.inf, 0.4), (1, None)])
def test_the_rate_is_constant_without_a_final_one_or_an_end(steps, final):
    assert rates(Stage(steps), 30, final) == [2.0] * 30


def test_a_warm_up_may_be_as_long_as_the_run():
    assert rates(Stage(4), 6, 0.4, warmup=4) == pytest.approx([0.5, 1, 1.5, 2, 2, 0.4])


def test_a_run_limited_by_hours_decays_by_its_time():
    timer = ClockedTimer(0)
    stage = Stage(math.inf, timer)
    built = build_optimizer(stage, 2.0, 0.4, 0)
    found = []
    for timer.elapsed in (0, 25, 50, 100, 120):
        built["optimizer"].step()
        built["lr_scheduler"]["scheduler"].step()
        found.append(built["optimizer"].param_groups[0]["lr"])
    quarter = 0.4 + 1.6 * (1 + math.cos(math.pi / 4)) / 2
    assert found == pytest.approx([2, quarter, 1.2, 0.4, 0.4])
    assert time_share(Stage(1).trainer) == 0
    resumed = Timer({"seconds": 100})
    resumed.load_state_dict({"time_elapsed": {"train": 25, "sanity_check": 0, "validate": 0}})
    assert time_share(Stage(1, resumed).trainer) == pytest.approx(0.25), "what an earlier part of the run has used"


def test_of_steps_and_hours_the_one_that_ends_first_counts():
    at_half = 0.4 + 1.6 / 2
    assert rates(Stage(10, ClockedTimer(0)), 6, 0.4)[5] == pytest.approx(at_half)
    assert rates(Stage(1000, ClockedTimer(50)), 3, 0.4)[1] == pytest.approx(at_half)


def test_only_what_requires_a_gradient_is_optimized():
    stage = Stage(1)
    optimizer = build_optimizer(stage, 1e-3, None, 0)["optimizer"]
    assert type(optimizer) is torch.optim.Adam
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in stage.trained.parameters()}


def test_gradients_are_clipped_to_their_norm_together():
    for limit, scale in ((0.5, 0.1), (None, 1), (100.0, 1)):
        stage = Stage(1)
        stage.trainer_config.gradient_clip = limit
        weight, bias = stage.trained.weight, stage.trained.bias
        weight.grad, bias.grad = torch.tensor([[3.0, 0], [0, 0]]), torch.tensor([0, 4.0])  # a norm of 5
        clip_gradients(stage)
        assert weight.grad[0, 0].item() == pytest.approx(3 * scale) and bias.grad[1].item() == pytest.approx(4 * scale)


def test_time_for_preparation_is_not_counted():
    timer = ClockedTimer(40)
    timer.prepared = 20.0
    assert time_share(Stage(1, timer).trainer) == pytest.approx(20 / 80)


def test_the_optimizer_is_fused():
    assert build_optimizer(Stage(1), 1e-3, None, 0)["optimizer"].defaults["fused"] is True


def test_noise_may_be_drawn_on_the_stages_device():
    stage = Stage(1)
    stage.device = torch.device("meta")
    assert step_generator(stage).device == torch.device("cpu")
    with pytest.raises(RuntimeError, match="(?i)meta"):  # asked of that device, which has no generator
        step_generator(stage, on_device=True)


def test_noise_depends_on_seed_batch_and_device():
    def draw(**options) -> float:
        stage = Stage(1)
        stage.trainer_config.seed = options.get("seed", 3)
        stage.trainer.fit_loop.epoch_loop.total_batch_idx = options.get("batch", 5)
        stage.trainer.global_rank = options.get("rank", 0)
        return torch.rand(1, generator=step_generator(stage)).item()

    assert draw() == draw()
    assert len({draw(), draw(seed=4), draw(batch=6), draw(rank=1)}) == 4
    assert len({draw(batch=batch) for batch in range(300)}) == 300, "no step's noise comes again"
    stage, hashes = Stage(1), []
    for stage.trainer.fit_loop.epoch_loop.total_batch_idx in range(8):
        hashes.append(hash((3, stage.trainer.fit_loop.epoch_loop.total_batch_idx, 0)))
        assert step_generator(stage).initial_seed() == hashes[-1] % 2**63, "of 63 bits, which every device takes"
    assert min(hashes) < 0 < max(hashes)


def test_checkpoints_leave_out_frozen_weights_alone():
    stage = Stage(1)
    checkpoint = {"state_dict": stage.state_dict()}
    only_trained_weights(stage, checkpoint)
    buffers = {"frozen.running_mean", "frozen.running_var", "frozen.num_batches_tracked"}
    assert checkpoint["state_dict"].keys() == {"trained.weight", "trained.bias"} | buffers


def test_images_a_second_are_those_between_two_logged_steps(monkeypatch):
    logged, clock = {}, iter([10.0, 12.0])
    monkeypatch.setattr("lcad.training.trainer.time.monotonic", lambda: next(clock))
    stage = SimpleNamespace(log=logged.__setitem__)
    rate = Rate(batch_size=8)
    for step in range(1, 11):
        trainer = SimpleNamespace(global_step=step, log_every_n_steps=5, accumulate_grad_batches=2, world_size=3)
        rate.on_train_batch_end(trainer, stage)
        rate.on_train_batch_end(trainer, stage)  # the other batch of the step
    assert logged == {"train/images_per_s": 5 * 2 * 8 * 3 / 2.0}
