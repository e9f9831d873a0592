import json

import pytest
import torch
from dcgan import Generator as DCGAN
from labelled import CHECKPOINTS, latents_of
from PIL import Image
from terrain import Terrain
from toys import VOCABULARY, pixels, random_heads, tiny_model

from energyql import Model, load_model, sample_pictures
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import Convolutions, Judge, thumbnails
from energyql.attributes.predictions import YesNo
from energyql.errors import ArgumentError, DataError, UnknownAttribute
from energyql.files import write_json
from energyql.generators.families import save_model
from energyql.generators.load import load_generator
from energyql.labelling.folder import RECORD, PictureFolder
from energyql.labelling.sample import choose_unsure
from energyql.labelling.sheet import LabelSheet
from energyql.render.pictures import to_pictures
from energyql.training.samples import Prior
from energyql.training.settings import POOL_START
from energyql.training.teacher import load_teacher, store_teacher, teacher_reads
from energyql.vocabulary import AttributeSpec, Vocabulary

ADA = CHECKPOINTS / "ada.pkl"


def files(folder):
    return sorted(path.name for path in folder.path.glob("*.png"))


class TestRandom:
    def test_a_checkpoint_without_attributes(self, tmp_path):
        folder = sample_pictures(ADA, tmp_path / "p", 5, seed=7)
        assert (folder.drawn.seed, folder.drawn.truncation, folder.random) == (7, 0.7, 5)
        generator = load_generator(ADA)
        expected = to_pictures(generator.synthesize(latents_of(generator, 5, 0.7, seed=7)))
        assert pixels([Image.open(folder.file(i)) for i in range(5)]) == pixels(expected)
        assert PictureFolder.read(tmp_path / "p") == folder

    def test_more_pictures_and_a_resumed_call(self, tmp_path):
        few = sample_pictures(ADA, tmp_path / "p", 2, seed=7)
        few.file(1).write_bytes(b"kept")
        more = sample_pictures(ADA, tmp_path / "p", 4)
        assert files(more) == [f"{i:07d}.png" for i in range(4)]
        assert few.file(1).read_bytes() == b"kept"
        assert sample_pictures(ADA, tmp_path / "p", 1) == more

    def test_an_interrupted_call_keeps_its_seed(self, tmp_path):
        def stop(stage, fraction):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sample_pictures(ADA, tmp_path / "p", 3, seed=7, progress=stop)
        with pytest.raises(ArgumentError, match="is about pictures of seed 7, not 8\nleave out the seed"):
            sample_pictures(ADA, tmp_path / "p", 3, seed=8)
        assert sample_pictures(ADA, tmp_path / "p", 3).random == 3

    def test_a_folder_without_heads_has_a_truncation_of_its_own(self, tmp_path):
        save_model(tmp_path / "m", "m", load_generator(ADA), truncation=0.4, dtype=torch.float32)
        assert sample_pictures(tmp_path / "m", tmp_path / "p", 1).drawn.truncation == 0.4
        assert sample_pictures(tmp_path / "m", tmp_path / "q", 1, truncation=1).drawn.truncation == 1

    def test_any_generator(self, tmp_path):
        class Small(torch.nn.Module):
            z_dim = 3

            def encode(self, z, truncation=1.0):
                return truncation * z

            def synthesize(self, w):
                return w.tanh()[:, :, None, None].expand(-1, -1, 4, 4)

        class Scaled(Small):
            def __init__(self):
                super().__init__()
                self.scale = torch.nn.Parameter(torch.ones(1))

        folder = sample_pictures(Small(), tmp_path / "p", 20)
        assert folder.drawn.truncation == 1
        with pytest.raises(DataError, match="pictures of another generator"):
            sample_pictures(Scaled(), tmp_path / "p", 21)
        with pytest.raises(ArgumentError, match="is no generator"):
            sample_pictures(DCGAN(0, 3, 8, 2), tmp_path / "q", 1)

    def test_labels_of_a_conditional_generator(self, tmp_path):
        conditional = CHECKPOINTS / "ada_conditional.pkl"
        folders = [sample_pictures(conditional, tmp_path / str(k), 1, condition=k) for k in (1, 2)]
        assert folders[0].file(0).read_bytes() != folders[1].file(0).read_bytes()
        assert PictureFolder.read(tmp_path / "2").drawn.condition == 2
        mixed = sample_pictures(conditional, tmp_path / "mixed", 1, condition=[0.5, 0.5, 0, 0])
        assert PictureFolder.read(tmp_path / "mixed") == mixed
        with pytest.raises(ArgumentError, match="give a condition"):
            sample_pictures(conditional, tmp_path / "none", 1)
        assert not (tmp_path / "none").exists()


class TestUnsure:
    def test_heads_choose_and_never_the_same_again(self, tiny, tmp_path):
        first = sample_pictures(tiny, tmp_path / "p", 4, unsure=True, pool=50)
        assert len(set(first.unsure)) == 4
        assert all(POOL_START <= index < POOL_START + 50 for index in first.unsure)
        again = sample_pictures(load_model(tiny), tmp_path / "p", 4, unsure=True, pool=50)
        assert again.unsure[:4] == first.unsure
        assert len(set(again.unsure)) == 8
        with pytest.raises(ArgumentError, match="only 42 pictures are left"):
            sample_pictures(tiny, tmp_path / "p", 43, unsure=True, pool=50)

    def test_the_least_sure(self, tiny, tmp_path):
        model = load_model(tiny)
        folder = sample_pictures(model, tmp_path / "p", 2, unsure=True, pool=200, only=["smile"])
        prior = Prior(model.generator, 0, FittedUnder("w", (0.7, 0.7)), torch.device("cpu"))
        logit = model.bank.predict(prior.w(POOL_START + torch.arange(200)), ["smile"])["smile"].logit
        yes, no = (index - POOL_START for index in folder.unsure)
        assert logit[yes] == logit[logit >= 0].min()
        assert logit[no] == logit[logit < 0].max()

    def test_heads_on_a_view_of_z(self, tmp_path):
        generator = Terrain()
        specs = Vocabulary([AttributeSpec("steep", "yes/no")])
        bank = AttributeBank(specs, random_heads(specs, 16), fitted=FittedUnder("features", (1.0, 1.0)))
        folder = sample_pictures(Model("t", generator, bank), tmp_path / "p", 2, unsure=True, pool=40)
        index = POOL_START + torch.arange(40)
        logit = bank.predict(Prior(generator, 0, FittedUnder(), torch.device("cpu")).read(index, "features"))[
            "steep"
        ].logit
        assert sorted(folder.unsure) == sorted(
            int(index[logit == bound][0]) for bound in (logit[logit >= 0].min(), logit[logit < 0].max())
        )

    def test_none_of_a_table(self, tiny, tmp_path):
        first = sample_pictures(tiny, tmp_path / "p", 5, unsure=True, pool=50, seed=3)
        sheet = LabelSheet.open(tmp_path / "a.csv", first, "smile")
        for index in first.unsure:
            sheet.decide(index, {"smile": "yes"})
        other = sample_pictures(tiny, tmp_path / "q", 5, unsure=True, pool=50, seed=3, labels=tmp_path / "a.csv")
        assert not set(other.unsure) & set(first.unsure)
        with pytest.raises(DataError, match=r"a\.csv is not about these pictures: seed=3 .* is not seed=4"):
            sample_pictures(tiny, tmp_path / "r", 5, unsure=True, seed=4, labels=tmp_path / "a.csv")

    def test_a_teacher_chooses_by_the_pictures(self, tmp_path, monkeypatch):
        model = tiny_model(tmp_path / "m")
        specs = Vocabulary([VOCABULARY["smile"]])
        networks = []
        for seed in range(2):
            torch.manual_seed(seed)
            networks.append(Judge(specs, Convolutions(8, (4,))).eval().half().float())
        plain = sample_pictures(model, tmp_path / "plain", 6, unsure=True, pool=60, only=["smile"])
        store_teacher(model, networks)
        assert [list(network.vocabulary) for network in load_teacher(model)] == [["smile"]] * 2
        assert set(load_model(model).fingerprints) == {"generator", "attributes", "judge"}
        drawn = []
        synthesize = type(load_model(model).generator).synthesize
        monkeypatch.setattr(
            type(load_model(model).generator), "synthesize",
            lambda self, w, **more: drawn.append(len(w)) or synthesize(self, w, **more),
        )  # fmt: skip
        options = {"unsure": True, "pool": 60, "by": "teacher"}
        first = sample_pictures(model, tmp_path / "p", 6, only=["smile"], **options)
        assert first.unsure != plain.unsure
        assert sum(drawn) == 60 + 6  # the pool, and the chosen ones
        prior = Prior(load_model(model).generator, 0, FittedUnder("w", (0.7, 0.7)), torch.device("cpu"))
        images = thumbnails(prior.generator.synthesize(prior.w(POOL_START + torch.arange(60))), 8)
        pictures = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        logit = teacher_reads(networks, pictures)["smile"].logit
        assert [index - POOL_START for index in first.unsure] == choose_unsure({"smile": YesNo(logit)}, 6)
        drawn.clear()
        again = sample_pictures(model, tmp_path / "p", 3, only=["smile"], **options)
        assert again.unsure[:6] == first.unsure
        assert len(set(again.unsure)) == 9
        assert sum(drawn) == 3  # the pool is drawn once for all rounds
        assert sorted(path.name for path in (tmp_path / "p").iterdir() if path.suffix == ".png") == sorted(
            f"{index:07d}.png" for index in again.unsure
        )
        with pytest.raises(ArgumentError, match="no teacher that reads these attributes\ntrain it on a table"):
            sample_pictures(model, tmp_path / "q", 3, only=["hair"], **options)
        mixed = sample_pictures(model, tmp_path / "q", 10, **options)  # heads choose for the other attributes
        assert len(mixed.unsure) == 10
        options.pop("by")  # the teacher is the default where it reads an attribute
        assert sample_pictures(model, tmp_path / "d", 6, only=["smile"], **options).unsure == first.unsure
        assert sample_pictures(model, tmp_path / "h", 6, only=["smile"], by="heads", **options).unsure == plain.unsure
        drawn.clear()
        sample_pictures(model, tmp_path / "o", 3, only=["hair"], **options)
        assert sum(drawn) == 3, "the teacher does not read hair, so no pool is drawn"
        store_teacher(model, [])
        assert load_teacher(model) == []
        assert not list(model.glob("teacher*"))

    def test_a_table_that_is_missing(self, tiny, tmp_path):
        with pytest.raises(DataError, match=r"no\.csv is missing"):
            sample_pictures(tiny, tmp_path / "p", 1, unsure=True, labels=tmp_path / "no.csv")

    def test_mistakes(self, tiny, tmp_path):
        with pytest.raises(ArgumentError, match="no heads yet that could be unsure"):
            sample_pictures(ADA, tmp_path / "p", 1, unsure=True)
        with pytest.raises(ArgumentError, match="not chosen by attributes"):
            sample_pictures(tiny, tmp_path / "p", 1, only=["smile"])
        with pytest.raises(UnknownAttribute, match="'hat' is not an attribute"):
            sample_pictures(tiny, tmp_path / "p", 1, unsure=True, only=["hat"])
        with pytest.raises(ArgumentError, match="chosen by heads, teacher or reader, not 'me'"):
            sample_pictures(tiny, tmp_path / "p", 1, unsure=True, by="me")
        with pytest.raises(ArgumentError, match="from 1 to 1,000,000, not 0"):
            sample_pictures(tiny, tmp_path / "p", 0)
        with pytest.raises(ArgumentError, match="from 0 to 2, not 3"):
            sample_pictures(ADA, tmp_path / "q", 1, truncation=3)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "settings",
        [
            {"seed": -1}, {"seed": "a"}, {"seed": 2**64}, {"n": 2.5}, {"truncation": "a"},
            {"truncation": float("nan")}, {"device": "x"}, {"pool": 2.5, "unsure": True},
        ],
    )  # fmt: skip
    def test_nothing_is_recorded_for_a_wrong_argument(self, tiny, tmp_path, settings):
        with pytest.raises(ArgumentError, match=r"must be a|is not available"):
            sample_pictures(tiny, tmp_path / "p", **{"n": 2, **settings})
        assert not list(tmp_path.iterdir())


def test_damaged_records(tmp_path):
    with pytest.raises(DataError, match=r"not a folder of pictures to label.*missing\nsample_pictures\(model, "):
        PictureFolder.read(tmp_path)
    for record in ({}, {"drawn": "seed=7", "random": 1, "unsure": []}, {"drawn": "", "random": "x", "unsure": None}):
        write_json(tmp_path / RECORD, record)
        with pytest.raises(DataError, match=r"damaged|does not say how"):
            PictureFolder.read(tmp_path)


def test_damaged_numbers(tmp_path):
    record = {"drawn": "seed=7 truncation=0.7 generator=abc", "random": 2, "unsure": [POOL_START]}
    write_json(tmp_path / RECORD, record)
    assert PictureFolder.read(tmp_path).indices == [0, 1, POOL_START]
    for name in ("random", "unsure"):
        for number in (-1, 1.5, True, "1", 1e300, 1 << 70, *([10**9] if name == "random" else [])):
            write_json(tmp_path / RECORD, record | {name: number if name == "random" else [number]})
            with pytest.raises(DataError, match="damaged"):
                PictureFolder.read(tmp_path)
    (tmp_path / RECORD).write_text(json.dumps(record | {"unsure": [float("inf")]}))
    with pytest.raises(DataError, match="damaged"):
        PictureFolder.read(tmp_path)
