"""The loop with objectives that are no diffusion: a contrastive one, and one vector of a model that is frozen."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_runs import generator, names, one_thread  # noqa: F401 – for every test here
from torch import nn

from dlcv_diffusion import UserError
from dlcv_diffusion.models.registry import read_tensors, write_tensors
from dlcv_diffusion.training import Objective, RunConfig, run
from dlcv_diffusion.training.objective import batch_indices, generator_of

CONFIG = RunConfig(steps=6, batch_size=8, lr=1e-2, warmup=2, ema_decay=0.5, clip_grad=1.0)


def weights(out):
    return {name: value.numpy().tobytes() for name, value in read_tensors(out / "checkpoint.safetensors")[0].items()}


class Toy(Objective):
    """Batches of pairs (a, b) that belong together, and weights that are saved by name."""

    facts = {"objective": "toy"}

    def __init__(self, model):
        self.model = model

    def batch(self, step):
        a = torch.randn(40, 5, generator=generator())[batch_indices(step, 40, CONFIG)]
        return a, a.flip(1) + 0.1 * torch.randn(a.shape, generator=generator_of(CONFIG.seed, 2, step))

    def save(self, average, path, facts):
        trained = {name for name, weight in average.named_parameters() if weight.requires_grad}
        write_tensors(path, {k: v for k, v in average.state_dict().items() if k in trained}, facts)


class TwoEncoders(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.0), nn.Linear(8, 3))
        self.text, self.scale = nn.Linear(5, 3), nn.Parameter(torch.tensor(1.0))

    def forward(self, images, texts):
        return F.normalize(self.image(images), dim=-1), F.normalize(self.text(texts), dim=-1), self.scale.exp()


class Contrastive(Toy):
    def loss(self, network, *batch):
        images, texts, scale = network(*batch)
        logits, own = scale * images @ texts.T, torch.arange(len(images))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class WithNewWord(nn.Module):
    """A frozen encoder of words with a vector for a new one, as in textual inversion."""

    def __init__(self):
        super().__init__()
        self.words, self.new = nn.Embedding(10, 5), nn.Parameter(torch.zeros(5))
        self.encoder = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 5))
        self.words.requires_grad_(False)
        self.encoder.requires_grad_(False)

    def forward(self, a):
        return self.encoder(a + self.words.weight[3] + self.new)


class Inversion(Toy):
    def loss(self, network, a, b):
        return F.mse_loss(network(a), b)


def made(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {"contrastive": lambda: Contrastive(TwoEncoders()), "inversion": lambda: Inversion(WithNewWord())}[
            kind
        ]()


def go(kind, out, *, until=None, resume=False, config=CONFIG):
    objective, states = made(kind), []
    for state in run(objective, config, out, resume=resume, checkpoint_every=2, device="cpu"):
        states.append(state)
        if state.step == until:
            break
    return objective, states


@pytest.mark.parametrize("kind", ["contrastive", "inversion"])
def test_any_objective_goes_on_to_the_same_bits(tmp_path, kind):
    _, whole = go(kind, tmp_path / "whole")
    go(kind, tmp_path / "left", until=5)
    _, rest = go(kind, tmp_path / "left", resume=True)
    assert [state.step for state in rest] == [5, 6] and len(whole) == 6
    assert weights(tmp_path / "left") == weights(tmp_path / "whole")
    one, other = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("whole", "left"))
    assert one == other and names(tmp_path / "left") == ["checkpoint.safetensors", "metrics.csv", "model.safetensors"]


def test_the_loss_is_that_of_torch_s_own_loop(tmp_path):
    """Adam by hand on the contrastive loss, without the rest."""
    config = RunConfig(steps=6, batch_size=8, lr=1e-2, warmup=0, weight_decay=0.0, decay=0.0, ema_decay=0.0)
    _, states = go("contrastive", tmp_path, config=config)
    objective = made("contrastive")
    model = objective.model.train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for state in states:
        loss = objective.loss(model, *objective.batch(state.step - 1))
        assert math.isclose(state.loss, loss.item(), rel_tol=1e-5)
        adam.zero_grad()
        loss.backward()
        adam.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(states[-1].ema.state_dict()[name], value)  # with a decay of 0 it is the model


def test_what_is_frozen_does_not_move_and_is_not_kept(tmp_path):
    before = made("inversion").model.state_dict()
    objective, states = go("inversion", tmp_path)
    model, average = objective.model, states[-1].ema
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name != "new"), name  # BatchNorm's statistics too
    assert average.words.weight is model.words.weight  # shared, not copied
    assert not torch.equal(average.new, model.new)
    saved = weights(tmp_path)
    assert {name for name in saved if "words" in name or "encoder" in name} == set()
    assert {"model.new", "ema.module.new", "optimizer.0.exp_avg"} <= saved.keys()
    assert read_tensors(tmp_path / "model.safetensors")[0].keys() == {"new"}
    assert model.training and not model.encoder.training and not model.encoder[2].training


def test_other_frozen_weights_are_refused(tmp_path):
    go("inversion", tmp_path, until=3)
    for name in ("words.weight", "encoder.1.running_mean"):
        objective = made("inversion")
        objective.model.state_dict()[name][0] += 1
        with pytest.raises(UserError, match="frozen_hash: [0-9a-f]{16} then, [0-9a-f]{16} now"):
            next(run(objective, CONFIG, tmp_path, resume=True, device="cpu"))


def test_an_older_checkpoint_with_frozen_statistics_goes_on(tmp_path):
    go("inversion", tmp_path, until=3)
    tensors, header = read_tensors(tmp_path / "checkpoint.safetensors")
    del header["checkpoint"]["facts"]["frozen_hash"]
    older = {f"{prefix}encoder.1.running_mean": torch.zeros(5) for prefix in ("model.", "ema.module.")}
    write_tensors(tmp_path / "checkpoint.safetensors", {**tensors, **older}, header)
    assert [state.step for state in go("inversion", tmp_path, resume=True)[1]] == [3, 4, 5, 6]


def test_an_average_of_half_and_half_is_that_of_the_new_vector(tmp_path):
    expected = None
    objective = made("inversion")
    for state in run(objective, CONFIG, tmp_path, device="cpu"):
        new = state.model.new.detach().clone()
        expected = new if expected is None else 0.5 * expected + 0.5 * new
        torch.testing.assert_close(state.ema.new, expected)


def test_nothing_to_train_is_told(tmp_path):
    objective = made("inversion")
    objective.model.requires_grad_(False)
    with pytest.raises(UserError, match="no parameter of the model requires a gradient"):
        next(run(objective, CONFIG, tmp_path / "run", device="cpu"))
    assert names(tmp_path) == []


def test_a_parameter_that_the_loss_leaves_out_is_no_obstacle(tmp_path):
    """It has no moments, and goes on without."""

    def go_on(out, until=None, resume=False):
        objective = made("inversion")
        objective.model.unused = nn.Parameter(torch.ones(2))
        for state in run(objective, CONFIG, out, resume=resume, checkpoint_every=2, device="cpu"):
            if state.step == until:
                break
        return objective.model.unused

    go_on(tmp_path / "whole")
    go_on(tmp_path / "left", until=3)
    assert go_on(tmp_path / "left", resume=True).tolist() == [1.0, 1.0]
    assert weights(tmp_path / "left") == weights(tmp_path / "whole")
