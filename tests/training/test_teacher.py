"""A teacher labels further pictures for heads whose labels by hand are few."""

import shutil
from types import SimpleNamespace

import pytest
import short
import torch
from brief import train
from holes import Stains, look

from energyql.attributes.bank import FittedUnder
from energyql.attributes.labels import encode_column
from energyql.errors import DataError
from energyql.generators.families import module_fingerprint
from energyql.models.unfinished import WORK
from energyql.training import bank_fit, teacher
from energyql.training.heads import HeadSettings, train_heads
from energyql.training.labels import LabelTable
from energyql.training.picture_fit import PictureSettings, calibration
from energyql.training.samples import Prior, draw_thumbnails
from energyql.training.settings import POOL_START
from energyql.training.teacher import DRAWS, _drawn_labels, further_pictures
from energyql.vocabulary import AttributeSpec

pytestmark = pytest.mark.filterwarnings("ignore:there are few labels")
QUICK = PictureSettings(side=8, channels=(8, 16), least=1_536, most=1_536, lr=1e-2)
HEADS = HeadSettings(steps=200, hidden=8, batch=256, lr=5e-3)
BRIEF = HeadSettings(steps=10, hidden=8, batch=256, lr=5e-3)
"""Where the quality of the heads is not looked at."""
LABELS = 150


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        short.networks(patch, QUICK)
        yield


@pytest.fixture(scope="module")
def with_teacher(quick, tmp_path_factory):
    """A training with teachers, and its folder; not to be changed."""
    folder = tmp_path_factory.mktemp("taught")
    return taught(folder / "m"), folder / "m"


def pictures(seed, count):
    z = Prior(Stains(), seed, FittedUnder(), torch.device("cpu")).z(torch.arange(count))
    return z, Stains().synthesize(z)


def table(flipped=0, **more):
    """Labels of pictures, the last 30 for the report; those of the first `flipped` of these are wrong."""
    images = pictures(3, LABELS)[1]
    found = look(images)
    columns = {name: found[name].tolist() for name in ("red", "odd")} | {"light": images.mean((1, 2, 3)).tolist()}
    rows = range(LABELS - 30, LABELS - 30 + flipped)
    columns["red"] = [not cell if row in rows else cell for row, cell in enumerate(columns["red"])]
    return LabelTable(columns, index=torch.arange(LABELS), test=30, **more)


def taught(folder, labels=None, **more):
    options = {"seed": 3, "n": 400, "settings": HEADS, "truncation": 1.0} | more
    return train(Stains(), labels or table(), folder, **options)


def score(bank):
    z, images = pictures(4, 2_000)
    truth = look(images)["red"]
    right = (bank.predict(z, ("red",))["red"].logit > 0) == truth
    return (right[truth].float().mean().item() + right[~truth].float().mean().item()) / 2


def test_heads_learn_more(with_teacher, tmp_path):
    alone, (with_teacher, _) = taught(tmp_path / "a", n=0), with_teacher
    assert score(with_teacher.bank) > score(alone.bank) + 0.05
    found = with_teacher.report["red"].details["teacher"]
    assert (found["pictures"], found["samples"]) == (400, LABELS - 30)
    assert found["score"] > 0.85
    assert with_teacher.report["light"].details["teacher"]["score"] > 0.5
    assert with_teacher.report["red"].fitted == LABELS - 30  # by hand
    assert "teacher" not in alone.report["red"].details


def test_its_networks_are_kept_with_the_model(with_teacher, tmp_path):
    shutil.copytree(with_teacher[1], tmp_path / "m")
    networks = teacher.load_teacher(tmp_path / "m")
    assert [list(network.vocabulary) for network in networks] == [["red", "light"]] * 3  # what it reads
    images = (pictures(4, 500)[1] + 1) * 127.5
    found = teacher.teacher_reads(networks, images.round().to(torch.uint8))["red"].logit > 0
    truth = look(pictures(4, 500)[1])["red"]
    assert (found == truth).float().mean() > 0.75
    taught(tmp_path / "m", n=0, replace=True, settings=BRIEF)
    assert teacher.load_teacher(tmp_path / "m") == []


def test_what_it_cannot_read_is_not_taught(with_teacher, tmp_path):
    with_teacher, _ = with_teacher
    assert with_teacher.report["odd"].details["teacher"]["pictures"] == 0
    only = taught(tmp_path / "c", n=0, only=["odd"])
    heads = [made.bank.heads["odd"].tensors() for made in (only, with_teacher)]
    assert all(torch.equal(heads[0][name], tensor) for name, tensor in heads[1].items())
    assert list(with_teacher.bank.vocabulary) == ["red", "odd", "light"]


def test_rows_of_the_report_teach_nothing(with_teacher, tmp_path):
    (honest, _), wrong = with_teacher, taught(tmp_path / "b", table(flipped=30))
    for name, head in honest.bank.heads.items():
        assert all(torch.equal(wrong.bank.heads[name].tensors()[key], x) for key, x in head.tensors().items())
    right = honest.report["red"].score
    assert right > 0.7
    assert wrong.report["red"].score < 0.3


def test_an_interruption_changes_nothing(tmp_path):
    seen = []

    class Counted(Stains):
        def synthesize(self, w):
            seen.append(w)
            return super().synthesize(w)

    def stopping(where):
        def stop(stage, done):
            if stage == where and done > 0.5:
                raise KeyboardInterrupt

        return stop

    options = {"seed": 3, "n": 300, "settings": BRIEF, "truncation": 1.0}
    for where in ("teacher", "further"):
        with pytest.raises(KeyboardInterrupt):
            train(Counted(), table(), tmp_path / "a", progress=stopping(where), **options)
        assert not (tmp_path / "a" / "vocabulary.json").exists()
    assert len(torch.cat(seen).unique(dim=0)) == len(torch.cat(seen)) == LABELS + 300  # nothing is drawn twice
    train(Counted(), table(), tmp_path / "a", **options)
    assert len(torch.cat(seen)) == LABELS + 300
    train(Stains(), table(), tmp_path / "b", **options)
    for name in ("attributes.safetensors", "second.safetensors", "report.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not (tmp_path / "a" / WORK).exists()


def test_heads_are_stopped_on_a_part_of_its_pictures_too(tmp_path, monkeypatch):
    seen = {}

    def watched(labelled, *rest, held_out, **more):
        seen.setdefault(tuple(labelled.vocabulary), (labelled.inputs, held_out))  # first the heads, then the second
        return train_heads(labelled, *rest, held_out=held_out, **more)

    monkeypatch.setattr(bank_fit, "train_heads", watched)
    taught(tmp_path / "m", only=["red"], n=0, settings=BRIEF)
    alone, stopping = seen.pop(("red",))
    taught(tmp_path / "n", only=["red"], settings=BRIEF)
    x, held_out = seen["red",]
    assert held_out == stopping + DRAWS * 400 * bank_fit.TAUGHT_STOPPING
    learned, others = x[:-held_out], x[-held_out:]
    assert not {tuple(row) for row in learned.tolist()} & {tuple(row) for row in others.tolist()}
    for rows, by_hand in ((learned, alone[:-stopping]), (others, alone[-stopping:])):
        known = {tuple(row) for row in rows.tolist()}
        assert all(tuple(row) in known for row in by_hand.tolist())


class TestPool:
    """A table with pictures that were chosen has a pool from which they were chosen."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(teacher, "POOL_SIZE", 100)

    def chosen(self, **more):
        rows = torch.cat([POOL_START + torch.arange(20), torch.arange(LABELS - 20)])
        prior = Prior(Stains(), 3, FittedUnder(), torch.device("cpu"))
        found = look(Stains().synthesize(prior.z(rows)))
        return LabelTable({"red": found["red"].tolist()}, index=rows, learned=20, test=30, **more)

    def test_it_teaches_too(self, tmp_path, monkeypatch):
        seen = {}

        def watched(labelled, *rest, **more):
            seen.setdefault("latents", labelled.inputs)  # first the heads, then the second ones
            return train_heads(labelled, *rest, **more)

        monkeypatch.setattr(bank_fit, "train_heads", watched)
        found = taught(tmp_path / "m", self.chosen(), settings=BRIEF)
        # Those with labels by hand are not labelled again.
        assert found.report["red"].details["teacher"]["pictures"] == 400 + 100 - 20
        z = Prior(Stains(), 3, FittedUnder(), torch.device("cpu")).z(POOL_START + torch.arange(100))
        times = (seen["latents"][:, None] == z).all(2).sum(0).tolist()
        assert times == [1] * 20 + [DRAWS] * 80
        few = taught(tmp_path / "n", self.chosen(), n=50, settings=BRIEF)
        assert few.report["red"].details["teacher"]["pictures"] == 50 + 50 - 20

    def test_nobody_chose_the_pictures_that_heads_are_stopped_on(self, tmp_path, monkeypatch):
        seen = {}

        def watched(labelled, *rest, held_out, **more):
            seen.setdefault("others", labelled.inputs[-held_out:])
            return train_heads(labelled, *rest, held_out=held_out, **more)

        monkeypatch.setattr(bank_fit, "train_heads", watched)
        taught(tmp_path / "m", self.chosen(), settings=BRIEF)
        z = Prior(Stains(), 3, FittedUnder(), torch.device("cpu")).z(POOL_START + torch.arange(100))
        assert not (seen["others"][:, None] == z).all(2).any()

    @pytest.mark.slow
    def test_what_was_drawn_to_choose_is_not_drawn_again(self, tmp_path):
        class Counted(Stains):
            drawn = 0

            def synthesize(self, w):
                Counted.drawn += len(w)
                return super().synthesize(w)

        def count(folder, table, seed=3):
            Counted.drawn = 0
            options = {"seed": seed, "n": 300, "settings": BRIEF, "truncation": 1.0}
            found = train(Counted(), table, tmp_path / folder, **options)
            return Counted.drawn, found.bank.heads["red"].tensors()

        fitted, index = FittedUnder(generator=module_fingerprint(Counted())), POOL_START + torch.arange(100)
        prior = Prior(Stains(), 3, fitted, torch.device("cpu"))
        draw_thumbnails(prior, index, 8, tmp_path / "pool", report=lambda stage, done: None)
        before = {path.name: path.read_bytes() for path in (tmp_path / "pool").iterdir()}
        again, heads = count("a", self.chosen())
        kept, same = count("b", self.chosen(pool=tmp_path / "pool"))
        assert (again, kept) == (LABELS + 300 + 100, LABELS + 300)
        assert all(torch.equal(same[name], tensor) for name, tensor in heads.items())
        # Of another seed: neither used nor changed.
        assert count("c", self.chosen(pool=tmp_path / "pool"), seed=4)[0] == again
        assert before == {path.name: path.read_bytes() for path in (tmp_path / "pool").iterdir()}
        part = tmp_path / "pool" / "0-100"
        for damage in (b"", part.read_bytes()[:-1], part.read_bytes().replace(b"A", b"B", 1)):
            part.write_bytes(damage)
            drawn, same = count("d", self.chosen(pool=tmp_path / "pool"))
            assert drawn == again
            assert all(torch.equal(same[name], tensor) for name, tensor in heads.items())
            assert part.read_bytes() == damage
            shutil.rmtree(tmp_path / "d")

    def test_a_pool_that_is_labelled_to_the_last_picture(self, tmp_path, monkeypatch):
        monkeypatch.setattr(teacher, "POOL_SIZE", 20)
        assert taught(tmp_path / "m", self.chosen(), settings=BRIEF).report["red"].details["teacher"]["pictures"] == 400


def test_how_many_pictures_are_worth_drawing(monkeypatch):
    prior = Prior(Stains(), 0, FittedUnder(), torch.device("cpu"))
    task = SimpleNamespace(prior=prior, table=LabelTable({}, torch.arange(3)), backbone=None, picture_side=8)
    many = LabelTable({}, torch.arange(teacher.FEW))
    task.side = lambda least: least

    def counts(number=None):
        return [further_pictures(task, number, previews=previews) for previews in (False, True)]

    assert (counts(), counts(5)) == ([teacher.FURTHER] * 2, [5, 5])
    monkeypatch.setattr(teacher, "LARGEST", 7)
    assert counts() == [0, 0]
    task.backbone = "a backbone"
    assert counts() == [teacher.FURTHER_SEEN] * 2
    monkeypatch.setattr(teacher, "LARGEST_SEEN", 2)
    assert counts() == [teacher.FURTHER_SEEN // 16] * 2
    task.prior = Prior(Previewed(), 0, FittedUnder(), torch.device("cpu"))
    assert counts() == [teacher.FURTHER_SEEN // 16, teacher.FURTHER_PREVIEWS]
    assert counts(5) == [teacher.FURTHER_SEEN // 16, 5]
    monkeypatch.setattr(teacher, "LARGEST_SEEN", 8)
    assert counts() == [teacher.FURTHER_SEEN] * 2  # pictures, as there are enough
    task.table = many
    assert counts() == [0, teacher.FURTHER_PREVIEWS]
    task.backbone = None
    assert (counts(), counts(5)) == ([0, teacher.FURTHER_PREVIEWS], [0, 5])
    for table in (None, LabelTable({}, latents=torch.zeros(3, 2))):
        assert further_pictures(SimpleNamespace(prior=prior, table=table), 5, previews=True) == 0


class Previewed(Stains):
    """Pictures that count as large, with previews of 32, 64 and 128 pixels."""

    preview_sides = (32, 64, 128)

    def __init__(self):
        super().__init__()
        self.drawn, self.previews = 0, []

    def synthesize(self, w):
        self.drawn += len(w)
        return super().synthesize(w)

    def preview(self, w, side):
        self.previews += [side] * len(w)
        return torch.nn.functional.interpolate(super().synthesize(w), size=(side, side))


def test_a_teacher_of_large_pictures_sees_previews(tmp_path, monkeypatch):
    """It learns by previews, and labels by them."""
    monkeypatch.setattr(teacher, "LARGEST", 7)
    generator = Previewed()
    made = train(generator, table(), tmp_path / "m", seed=3, n=400, settings=HEADS, truncation=1.0, judge=None)
    assert generator.drawn == 1  # to learn their size
    assert generator.previews == [32] * (LABELS + 400)
    assert made.report["red"].details["teacher"]["score"] > 0.85
    assert score(made.bank) > score(taught(tmp_path / "a", n=0).bank) + 0.05
    assert teacher.load_teacher(tmp_path / "m") == []


def test_too_few_labels(tmp_path):
    cells = [True, False, *[None] * 28]
    with pytest.raises(DataError, match="'red': "):
        train(Stains(), LabelTable({"red": cells}, index=torch.arange(30)), tmp_path, n=50, seed=3, truncation=1.0)


class TestDrawnLabels:
    """The outputs count classes equally; the drawn labels are as frequent as the labels by hand."""

    random = torch.Generator().manual_seed(0)

    def drawn(self, spec, shares, scale):
        """Labels for outputs of networks that exaggerate by `scale`, and the true probabilities."""
        labels = torch.multinomial(shares.expand(40_000, -1), 1, generator=self.random)[:, 0]
        x = torch.randn(40_000, len(shares), generator=self.random)
        x += 1.5 * torch.eye(len(shares))[labels]  # class k is 1.5 farther along axis k: its log-density is 1.5 x_k
        logits, labels = 1.5 * x + shares.log(), labels.float()
        balanced = 1.5 * scale * (x if len(shares) > 2 else x[:, 1:] - x[:, :1])
        found = _drawn_labels(balanced[:20_000], labels[:20_000], balanced[None, 20_000:], spec, self.random)
        return found.view(DRAWS, -1), logits[20_000:].softmax(1)

    @pytest.mark.parametrize("scale", [1.0, 3.0])
    def test_yes_no(self, scale):
        found, truth = self.drawn(AttributeSpec("a", "yes/no"), torch.tensor([0.9, 0.1]), scale)
        for low, high in ((0, 0.1), (0.1, 0.4), (0.4, 1)):
            rows = (truth[:, 1] >= low) & (truth[:, 1] < high)
            assert found[:, rows].mean().item() == pytest.approx(truth[rows, 1].mean().item(), abs=0.03)
        assert (found.mean(0) - truth[:, 1]).abs().max() < 0.5  # four draws, evenly spread

    def test_classes(self):
        spec = AttributeSpec("a", "categorical", values=("x", "y", "z"))
        found, truth = self.drawn(spec, torch.tensor([0.7, 0.2, 0.1]), 2.0)
        shares = torch.bincount(found.flatten().long(), minlength=3) / found.numel()
        assert torch.allclose(shares, truth.mean(0), atol=0.03)

    def test_numbers_are_repeated(self):
        spec, outputs = AttributeSpec("a", "continuous"), torch.rand(5, 1)
        found = _drawn_labels(outputs, encode_column([0.1] * 5, spec), outputs[None], spec, self.random)
        assert torch.equal(found, outputs[:, 0].repeat(DRAWS))

    def test_the_mean_of_the_networks_is_more_certain_than_one(self):
        spec, count = AttributeSpec("a", "yes/no"), 20_000
        signal = 3 * torch.randn(2 * count, generator=self.random) - 1
        labels = (torch.rand(2 * count, generator=self.random) < signal.sigmoid()).float()
        networks = signal + 2 * torch.randn(3, 2 * count, generator=self.random)  # each has errors of its own
        own, new = networks[0, :count, None], networks[:, count:, None]
        found = _drawn_labels(own, labels[:count], new, spec, self.random).view(DRAWS, -1).mean(0)
        scale, shift, _ = calibration(own, labels[:count], spec, exact=True)
        naive, truth = (new.mean(0) * scale + shift)[:, 0].sigmoid(), labels[count:]
        sure = naive > 0.9
        before, now, right = (shares[sure].mean().item() for shares in (naive, found, truth))
        assert before < now < right + 0.005
        assert right - now < 0.6 * (right - before)

    def test_a_few_labels_that_are_read_right_do_not_make_it_certain(self):
        spec, labels = AttributeSpec("a", "yes/no"), torch.tensor([0.0, 1.0]).repeat(50)
        outputs = (2 * labels - 1)[:, None] * torch.linspace(0.5, 3, 100)[:, None]
        scale = calibration(outputs, labels, spec).scale
        assert 1 < scale < 2

    @pytest.mark.parametrize("count", [1, 5, 20])
    def test_few_pictures_may_lack_a_class(self, count):
        spec, random = AttributeSpec("a", "yes/no"), torch.Generator().manual_seed(1)
        labels = (torch.rand(400, generator=random) < 0.05).float()
        own = (torch.randn(400, generator=random) + 2 * labels)[:, None]
        new = torch.randn(3, count, 1, generator=random)  # none has it
        for _ in range(12):
            assert _drawn_labels(own, labels, new, spec, random).mean() < 0.3
