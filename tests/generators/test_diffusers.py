"""Pipelines of diffusers as generators: their noise is z, and their own call draws the same pictures."""

from __future__ import annotations

import copy
import inspect
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from markdown import ROOT, run_page
from markdown import call as command
from pipelines import classes, diffusers, flow, latent, pixels, unconditional

import energyql
from energyql import (
    ArgumentError,
    AttributeSpec,
    Model,
    ModelError,
    Vocabulary,
    generate,
    load_generator,
    load_model,
    train_attributes,
)
from energyql.attributes.pictures import PictureBank
from energyql.generators.base import check_generator
from energyql.generators.diffusers import StoredPipeline, replay
from energyql.generators.families import module_fingerprint
from energyql.pipeline.plan import plan_query
from energyql.pipeline.result import Result
from energyql.pipeline.run import draw as run_draw
from energyql.pipeline.session import open_session
from energyql.training.heads import HeadSettings
from energyql.training.target import open_source, open_target, opening_target

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
TEXT = {"prompt": "a red hill", "height": 16, "width": 16, "num_inference_steps": 1}
STEPS = {"num_inference_steps": 2}
QUICK = HeadSettings(steps=20, hidden=4)
KNOWN = Vocabulary([AttributeSpec("warm", "yes/no"), AttributeSpec("bright", "yes/no")])
KNOWN_WARM = Vocabulary([KNOWN["warm"]])


def look(images):
    red, green, blue = images.mean((2, 3)).unbind(1)
    return {"warm": red > blue, "bright": (red + green + blue) / 3 > -0.05}


def noises(generator, count, seed=1):
    return torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(seed))


class Drawn(torch.overrides.TorchFunctionMode):
    """Records what `torch.randn` returns, as nobody else in this test does."""

    def __init__(self):
        super().__init__()
        self.noise = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.randn:
            self.noise.append(result.clone())
        return result


FAMILIES = {
    "pixels": (unconditional, STEPS, 1),
    "pixels with noise in steps": (unconditional, STEPS | {"eta": 1.0}, 3),
    "pixels of DDPM": (lambda: unconditional("DDPM"), STEPS, 2),
    "latents": (lambda: latent("EulerDiscrete"), TEXT | {"guidance_scale": 2.0}, 1),
    "consistency": (latent, TEXT | STEPS | {"guidance_scale": 1.5}, 2),
    "flow": (flow, TEXT, 1),
    "classes": (classes, STEPS | {"class_labels": 3}, 3),
}


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def family(request):
    make, call, draws = FAMILIES[request.param]
    pipeline = make()
    return pipeline, call, draws, load_generator(pipeline, **call)


def test_a_picture_is_that_of_a_seeded_call_of_the_pipeline(family):
    """The noise of a call with a seed, as z, gives the picture of this call."""
    pipeline, call, draws, generator = family
    with Drawn() as drawn:
        own = pipeline(**call, output_type="pt", generator=torch.Generator().manual_seed(7)).images
        again = pipeline(**call, generator=torch.Generator().manual_seed(7)).images
    assert len(drawn.noise) == 2 * draws == 2 * len(generator.z_shape)
    first = drawn.noise[0]
    if hasattr(pipeline, "_pack_latents"):
        first = pipeline._pack_latents(first, *first.shape)
    z = torch.cat([noise.flatten(1) for noise in (first, *drawn.noise[1:draws])], 1)
    picture = generator.synthesize(generator.encode(z))
    assert torch.equal(picture, 2 * own - 1)
    assert np.array_equal(energyql.render.pictures.to_pictures(picture)[0], again[0])


def test_a_picture_does_not_depend_on_its_batch(family):
    generator = family[3]
    z = noises(generator, 3)
    pictures = generator.synthesize(generator.encode(z))
    assert torch.equal(pictures[1:2], generator.synthesize(z[1:2]))
    assert not torch.equal(pictures[0], pictures[1])
    together = generator._pictures(z, None)  # as on other devices than a CPU: the same up to rounding
    assert torch.allclose(together, pictures, atol=1e-3)


def test_a_draft_does_not_depend_on_its_batch(family):
    """Bit for bit, though pictures of a draft are drawn together; and they are those of the pipeline up to rounding."""
    generator = family[3]
    w = generator.encode(noises(generator, 11))
    drafts = generator.draft(w)
    assert torch.equal(drafts, torch.cat([generator.draft(part) for part in w.split([1, 7, 3])]))
    assert torch.allclose(drafts, generator.synthesize(w), atol=1e-3)


def test_a_pipeline_that_mixes_pictures_draws_each_draft_alone(family, monkeypatch):
    generator = copy.copy(family[3])
    draw = generator._draw
    monkeypatch.setattr(generator, "_draw", lambda noise, number: draw(noise, number) + noise[0].mean() / 100)
    generator.__dict__.pop("_draft_sizes", None)
    w = generator.encode(noises(generator, 3))
    assert generator._draft_sizes == (1,)
    assert torch.equal(generator.draft(w), generator.synthesize(w))


@pytest.mark.parametrize("sizes", [None, (4,)], ids=["own", "filled up"])
def test_all_pictures_that_go_through_the_networks_are_counted(family, monkeypatch, sizes):
    """Also those that fill up a call where the bits of smaller ones differ."""
    generator, drawn = copy.copy(family[3]), []
    generator.draft(noises(generator, 1))  # finds out the sizes, for no run
    if sizes is not None:
        generator.__dict__["_draft_sizes"] = sizes
    draw = generator._draw
    monkeypatch.setattr(generator, "_draw", lambda noise, number: drawn.append(len(noise[0])) or draw(noise, number))
    model = Model("tiny", generator, PictureBank(lambda images: {"warm": images[:, 0, 0, 0] > 0}, KNOWN_WARM))
    prepared = plan_query(open_session(model, "cpu"), "warm")
    drawn.clear()
    result = run_draw(prepared, 3, progress=False)
    assert result.statistics["generator_calls"] == sum(drawn)
    if sizes is None and 1 in generator._draft_sizes:
        evaluated = result.statistics["generator_calls_mean"] * 3 + result.statistics["drawn"]
        assert sum(drawn) == evaluated + 32 + 1  # those that show how common the query is, and how many fit


@pytest.mark.parametrize("family", ["pixels with noise in steps", "consistency", "flow"], indirect=True)
def test_noise_of_a_result_draws_its_picture_by_a_call_of_the_user(family, tmp_path):
    """`latents=result.noise`, and the noise of the steps replayed; also for a result that was saved."""
    pipeline, call, draws, generator = family
    model = Model("tiny", generator, PictureBank(lambda images: {"warm": images.mean((1, 2, 3)) > -9}, KNOWN_WARM))
    generate("warm", n=1, model=model, sampler="slice", progress=False).save(tmp_path / "r")
    result = Result.load(tmp_path / "r")
    assert len(result.step_noise) == draws - 1
    assert result.noise.shape == (1, *generator.z_shape[0])
    one = (result + result)[1]
    if "latents" in inspect.signature(pipeline.__call__).parameters:
        with replay(one.step_noise):
            picture = pipeline(**call, latents=one.noise).images[0]
    else:
        with replay([one.noise, *one.step_noise]):
            picture = pipeline(**call).images[0]
    assert np.array_equal(picture, one.images[0])
    described = one.provenance["generator"]
    assert described["pipeline"] == type(pipeline).__name__
    assert described["call"]["num_inference_steps"] == call["num_inference_steps"]
    assert described["scheduler"]["name"] == type(pipeline.scheduler).__name__
    assert described["size"] == [16, 16]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pipelines")
    unconditional().save_pretrained(place / "pixels")
    latent().save_pretrained(place / "hills")
    one_step = diffusers.ConsistencyModelPipeline(pixels(), diffusers.CMStochasticIterativeScheduler())
    one_step.save_pretrained(place / "short")
    return place


def test_a_model_folder_records_the_pipeline_and_its_call(folder, tmp_path):
    generator = load_generator(folder / "pixels", num_inference_steps=1)
    train_attributes(generator, look, tmp_path / "m", n=100, judge=look, settings=QUICK, progress=False)
    settings = json.loads((tmp_path / "m" / "config.json").read_text())["generator"]
    assert settings == {"kind": "diffusers", "pipeline": str(folder / "pixels"), "call": {"num_inference_steps": 1}}
    assert not (tmp_path / "m" / "generator.safetensors").exists()
    model = load_model(tmp_path / "m", judge=look)
    assert isinstance(model.generator, StoredPipeline)
    result = generate("warm AND bright", n=3, model=model, verify="sure", progress=False)
    assert result.satisfied.all()
    assert model.fingerprints["generator"] == module_fingerprint(generator)
    with pytest.raises(ModelError, match="fitted to another generator"):
        load_model(tmp_path / "m", judge=look, generator=load_generator(folder / "pixels", num_inference_steps=2))
    moved = load_generator(shutil.copytree(folder / "pixels", tmp_path / "moved"), num_inference_steps=1)
    load_model(tmp_path / "m", generator=moved)
    with pytest.raises(ModelError, match="cannot be pushed|could not offer"):
        model.push_to_hub("a/b")


def test_a_prompt_beside_a_condition_or_of_another_type_is_refused():
    with pytest.raises(ArgumentError, match="condition and prompt are one argument"):
        load_generator(latent(), prompt="a house", condition=["a hill"])
    for prompts in (["a house", 3], [["a house"]]):
        with pytest.raises(ArgumentError, match="not all texts"):
            load_generator(latent(), prompt=prompts)


def test_prompts_as_conditions():
    pipeline = latent("EulerDiscrete")
    anything = PictureBank(lambda images: {"warm": images.mean((1, 2, 3)) > -9}, KNOWN_WARM)
    draw = {"model": Model("tiny", load_generator(pipeline, **TEXT), anything), "progress": False}
    house = generate("warm", n=6, condition="a house", **draw)
    picture = pipeline(**TEXT | {"prompt": "a house"}, latents=house[2].noise).images[0]
    assert np.array_equal(picture, house[2].images[0])
    assert house.provenance["generator"]["call"]["prompt"] == "a house"
    assert house.provenance["condition"] == "a house"
    both = generate("warm", n=6, condition=["a red hill", "a house"], **draw)
    assert set(both.prompt) == {"a red hill", "a house"}
    own = generate("warm", n=6, **draw)
    for one, prompt, pictures in zip(range(6), both.prompt, zip(house.images, own.images, strict=True), strict=True):
        assert np.array_equal(both.images[one], pictures[prompt == "a red hill"])
    pixelated = Model("pixels", load_generator(unconditional(), **STEPS), anything)
    with pytest.raises(ArgumentError, match="this DDIMPipeline has no single prompt"):
        generate("warm", n=1, condition="a house", model=pixelated, progress=False)


def test_threads_draw_the_pictures_of_one(folder, monkeypatch):
    generator = load_generator(latent("EulerDiscrete"), **TEXT | {"num_inference_steps": 4})
    z, pipeline, calls, most = noises(generator, 8), type(generator._pipeline), [], []
    one_call = pipeline.__call__

    def counted(*arguments, **call):
        calls.append(1)
        most.append(len(calls))
        time.sleep(0.01)
        try:
            return one_call(*arguments, **call)
        finally:
            calls.pop()

    with monkeypatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(pipeline, "__call__", counted)
        pictures = torch.cat(list(pool.map(generator.synthesize, z.split(1))))
    assert torch.equal(pictures, generator.synthesize(z))
    assert max(most) == 1  # the tokenizer of a pipeline has one padding for all threads


def test_commands_take_a_pipeline(folder, tmp_path):
    arguments = (
        "height=16",
        "width=16",
        "num_inference_steps=1",
        'prompt=["a red hill", "a house"]',
        "negative_prompt=blue",
    )
    convert = ["energyql", "convert", str(folder / "hills"), "--out"]
    printed = command([*convert, str(tmp_path / "m"), *(word for text in arguments for word in ("--call", text))])
    assert "kind StableDiffusionPipeline, size [16, 16], noise [(4, 8, 8)], classes 2, parameters" in printed
    made = json.loads((tmp_path / "m" / "config.json").read_text())
    assert made["generator"]["call"]["prompt"] == ["a red hill", "a house"]
    assert made["generator"]["call"]["negative_prompt"] == "blue"
    assert load_generator(tmp_path / "m").c_dim == 2
    command(
        ["energyql", "sample", str(tmp_path / "m"), "-n", "2", "--condition=1", "--out", str(tmp_path / "pictures")]
    )
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2
    unknown = "'promt' cannot be given for a .*\ndid you mean prompt"
    own = "'batch_size' cannot be given for a .*: it is set for each call"
    for wrong, message in (("prompt", "not of the form NAME=VALUE"), ("promt=a", unknown), ("batch_size=2", own)):
        with pytest.raises(ArgumentError, match=message):
            command([*convert, str(tmp_path / "n"), "--call", wrong])
    with pytest.raises(ArgumentError, match="with model_index.json"):
        command(["energyql", "convert", str(folder), "--out", str(tmp_path / "n")])
    with pytest.raises(ArgumentError, match="is a pipeline, and the options from --noise to --range are not"):
        command([*convert, str(tmp_path / "n"), "--scale", "80"])


def test_a_pipeline_with_classes_may_have_a_function_of_what_people_see(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_renders.py").write_text("def negative(images):\n    return -images\n")
    call = ("height=16", "width=16", "num_inference_steps=1", 'prompt=["a hill", "a house"]')
    options = [word for text in call for word in ("--call", text)]
    command(["energyql", "convert", str(folder / "hills"), "--out", "m", *options, "--render", "my_renders:negative"])
    assert json.loads((tmp_path / "m" / "config.json").read_text())["render"] == "my_renders:negative"


def test_a_training_opens_the_folder_of_a_pipeline(folder, tmp_path):
    target = open_target(str(folder / "short"), tmp_path / "m")
    assert target.generator.z_shape == [(3, 16, 16)]
    with target.changing():
        pass
    assert json.loads((tmp_path / "m" / "config.json").read_text())["generator"]["call"] == {}
    with pytest.raises(ModelError, match="holds another generator"):
        open_target(load_generator(folder / "pixels", **STEPS), tmp_path / "m")
    assert open_source(folder / "short").generator.z_dim == 768
    with (
        pytest.raises(ArgumentError, match="is a pipeline, so a model folder must be named"),
        opening_target(folder / "pixels", None),
    ):
        pass


def test_a_reader_of_pictures_by_name_is_saved_with_the_pipeline(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_looks.py").write_text("def look(images):\n    return {'warm': images[:, 0].mean((1, 2)) > 0}\n")
    generator = load_generator(folder / "pixels", num_inference_steps=2)
    Model("pixels", generator, PictureBank("my_looks:look", KNOWN_WARM)).save_pretrained("m")
    result = generate("warm", n=2, model=load_model("m", allow_plugins=True), sampler="slice", progress=False)
    assert result.statistics["generator_calls_mean"] >= 1
    assert result.probabilities["warm"].min() > 0.9


def test_a_list_of_prompts_makes_classes(folder):
    generator = load_generator(folder / "hills", condition=["a red hill", "a blue house"], height=16, width=16,
                               num_inference_steps=1)  # fmt: skip
    assert (generator.c_dim, generator.w_dim) == (2, generator.z_dim + 2)
    z, labels = noises(generator, 3), torch.eye(2)[[1, 0, 1]]
    pictures = generator.synthesize(generator.encode(z, 1.0, labels))
    for row, prompt in enumerate(["a blue house", "a red hill", "a blue house"]):
        one = load_generator(folder / "hills", prompt=prompt, height=16, width=16, num_inference_steps=1)
        assert torch.equal(pictures[row], one.synthesize(z[row : row + 1])[0])
    together = generator._pictures(generator.encode(z, 1.0, labels), None)
    assert torch.allclose(together, pictures, atol=1e-3)
    with pytest.raises(ArgumentError, match="cannot mix"):
        generator.encode(z, 1.0, torch.full((3, 2), 0.5))
    with pytest.raises(ArgumentError, match=r"of 2 classes takes a condition of shape \(3, 2\), not None"):
        generator.encode(z)


def test_features_are_normal_means_of_blocks_of_all_noise():
    generator = load_generator(unconditional("DDPM"), **STEPS)
    z = noises(generator, 500)
    features = generator.features(z)
    assert features.shape == (500, 2 * 3 * 64)
    assert features.std().item() == pytest.approx(1, abs=0.02)
    block = z.view(500, 2, 3, 16, 16)[:, 1, 0, :2, :2].sum((1, 2)) / 2
    assert torch.allclose(features[:, 192], block, atol=1e-6)
    many = load_generator(unconditional("DDPM"), num_inference_steps=6)
    assert many.features(noises(many, 1)).shape == (1, 6 * 3 * 16)


def test_features_of_packed_noise_are_those_of_its_picture():
    pipeline = flow()
    generator = load_generator(pipeline, **TEXT)
    noise = torch.randn(2, 4, 8, 8)
    z = pipeline._pack_latents(noise, *noise.shape).flatten(1)
    assert torch.equal(generator.features(z), noise.flatten(1))


def test_the_pipeline_of_the_user_is_not_changed():
    pipeline = unconditional()
    scheduler, steps = pipeline.scheduler, pipeline.scheduler.num_inference_steps
    load_generator(pipeline, num_inference_steps=3)
    assert pipeline.scheduler is scheduler
    assert pipeline.scheduler.num_inference_steps == steps
    assert not hasattr(pipeline, "_progress_bar_config")


class Uniform(diffusers.DDIMScheduler):
    """Adds noise that is drawn by other means than `torch.randn`."""

    def step(self, *args, **options):
        result = super().step(*args, **options)
        result.prev_sample += 0.3 * torch.rand(result.prev_sample.shape)
        return result


class Varying(diffusers.DDIMScheduler):
    """Draws once more in each call."""

    calls = 0

    def set_timesteps(self, *args, **options):
        type(self).calls += 1
        super().set_timesteps(*args, **options)
        for _ in range(type(self).calls):
            torch.randn(1, 3, 16, 16)


def with_scheduler(scheduler):
    pipeline = unconditional()
    pipeline.scheduler = scheduler()
    return pipeline


class Flat(diffusers.DDIMPipeline):
    """Starts with uniform numbers."""

    @torch.no_grad()
    def __call__(self, output_type="pt", batch_size=1):
        return type("Output", (), {"images": torch.rand(batch_size, 3, 16, 16)})


class Sound(diffusers.DDIMPipeline):
    """Returns no pictures."""

    def __call__(self, output_type="pt", batch_size=1):
        return type("Output", (), {"audios": torch.randn(batch_size, 3)})


def of_class(kind):
    pipeline = unconditional()
    return kind(pipeline.unet, pipeline.scheduler)


def of_task(kind):
    parts = latent().components
    return getattr(diffusers, f"StableDiffusion{kind}Pipeline")(**parts, requires_safety_checker=False)


@pytest.mark.parametrize(
    ("make", "call", "message"),
    [
        (
            lambda: with_scheduler(Uniform),
            STEPS,
            "with Uniform cannot be replayed: the same noise gives another picture",
        ),
        (lambda: with_scheduler(Varying), STEPS, "with Varying cannot be replayed: .*noise"),
        (lambda: of_class(Flat), {}, "a Flat is no generator .*: its latent is not Gaussian"),
        (lambda: of_class(Sound), {}, "a Sound is no generator .*: its call returns no pictures"),
        (
            unconditional,
            {"num_inference_step": 3},
            "'num_inference_step' cannot be given for a .*\ndid you mean num_inference_steps",
        ),
        (unconditional, {"batch_size": 3}, "'batch_size' cannot be given"),
        (unconditional, {"eta": torch.ones(1)}, "cannot be recorded"),
        (unconditional, {"num_inference_steps": "many"}, "the call of a DDIMPipeline failed: "),
        (latent, {"prompt": []}, "an empty list"),
        (classes, {"num_inference_steps": 1}, "cannot be replayed: the same noise gives .*\ngive class_labels"),
        (latent, {}, "the call of a StableDiffusionPipeline failed: "),
        (lambda: 3, {}, "is not a path"),
        (lambda: type("Call", (), {"components": {}, "__call__": print})(), {}, "a Call is neither the path"),
    ],
)
def test_what_cannot_be_a_generator_is_refused(make, call, message):
    with pytest.raises(ArgumentError, match=f"(?s){message}"):
        load_generator(make(), **call)


class Redraws(diffusers.DDIMPipeline):
    """Starts from a picture."""

    def __call__(self, mask_image, output_type="pt", batch_size=1):
        return type("Output", (), {"images": torch.randn(batch_size, 3, 16, 16)})


def upscaler():
    parts = {name: part for name, part in latent().components.items() if name != "image_encoder"}
    return diffusers.StableDiffusionUpscalePipeline(**parts, low_res_scheduler=diffusers.DDPMScheduler())


@pytest.mark.parametrize(
    "make",
    [
        *(partial(of_task, kind) for kind in ("Img2Img", "Inpaint", "InstructPix2Pix")),
        upscaler,
        lambda: of_class(Redraws),
    ],
)
@pytest.mark.parametrize("call", [{}, {"prompt": "a red hill"}])
def test_pipelines_that_start_from_a_picture_are_refused(make, call):
    pipeline = make()
    name = "mask_image" if isinstance(pipeline, Redraws) else "image"
    says = (
        f"a {type(pipeline).__name__} is no generator .*: it starts from a picture, '{name}'\npipelines that draw pict"
    )
    with pytest.raises(ArgumentError, match=f"(?s){says}ures from a text, from a class or from nothing are supported"):
        load_generator(pipeline, **({} if isinstance(pipeline, Redraws) else call))


def test_a_folder_whose_pipeline_starts_from_a_picture_is_refused(tmp_path):
    of_task("Img2Img").save_pretrained(tmp_path / "pipeline")
    with pytest.raises(ArgumentError, match="it starts from a picture, 'image'"):
        command(["energyql", "convert", str(tmp_path / "pipeline"), "--out", str(tmp_path / "model")])
    assert not (tmp_path / "model").exists()


class Edits(diffusers.DDIMPipeline):
    """Takes a picture, but needs none."""

    @torch.no_grad()
    def __call__(self, image: torch.Tensor | None = None, eta: float = 0.0, output_type="pt", batch_size=1):
        return type("Output", (), {"images": torch.randn(batch_size, 3, 16, 16) * (1 + eta)})


def test_a_pipeline_that_needs_no_picture_is_not_refused_for_it():
    assert load_generator(of_class(Edits)).size == [16, 16]
    with pytest.raises(ArgumentError, match="the call of a Edits failed: TypeError"):
        load_generator(of_class(Edits), eta="much")


def test_latents_of_a_wrong_shape_are_refused():
    generator = load_generator(unconditional(), **STEPS)
    with pytest.raises(
        ArgumentError, match=r"\(2, 3, 16, 16\), and this generator takes \(batch, 768\)\n.*\(3, 16, 16\)"
    ):
        generator.encode(torch.zeros(2, 3, 16, 16))
    generator.z_shape = [(3, 16, 17)]
    with pytest.raises(ArgumentError, match="z_shape of a PipelineGenerator is .*no part of 768 numbers"):
        check_generator(generator)
    with (
        pytest.raises(ArgumentError, match=r"noise of the shape \(1, 2\) is drawn, but \(1, 3\) is next"),
        replay([torch.ones(1, 3)]),
    ):
        torch.randn(1, 2)
    with pytest.raises(ArgumentError, match="of 1 tensors of noise, 1 were not drawn"), replay([torch.ones(1, 3)]):
        pass


def test_a_sampler_that_follows_a_gradient_is_refused():
    generator = load_generator(unconditional(), **STEPS)
    model = Model(
        "tiny", generator, PictureBank(lambda images: {"warm": images.mean((1, 2, 3)) > 0}, KNOWN_WARM, gradient=True)
    )
    with pytest.raises(ArgumentError, match='follows a gradient.*\n.*sampler="slice"'):
        generate("warm", n=1, model=model, sampler="ode", progress=False)


def test_latents_that_are_no_noise_have_no_shape(tiny_result):
    with pytest.raises(ArgumentError, match="its generator has no z_shape"):
        _ = tiny_result.noise


@pytest.fixture
def tiny_result():
    return generate("smile", n=1, progress=False)


@pytest.mark.parametrize("name", ["unet/old.bin", "weights.ckpt", "unet/pipeline.py"])
def test_pickles_and_code_in_a_folder_are_refused(folder, tmp_path, name):
    place = shutil.copytree(folder / "pixels", tmp_path / "p")
    (place / name).write_bytes(b"x")
    if name == "unet/old.bin":  # beside safetensors, it is not read
        assert load_generator(place, **STEPS).z_dim == 768
        (place / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    what = "is code, which is not run" if name.endswith(".py") else "may be a pickle.*\n.*save_pretrained"
    with pytest.raises(ModelError, match=f"{name} {what}"):
        load_generator(place, **STEPS)


def test_damaged_folders_are_refused(folder, tmp_path):
    place = shutil.copytree(folder / "pixels", tmp_path / "p")
    (place / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="cannot read the pipeline"):
        load_generator(place, **STEPS)
    (place / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="model_index.json"):
        load_generator(place, **STEPS)
    with pytest.raises(ModelError, match="it is a pipeline of diffusers"):
        load_model(place)
    with pytest.raises(ArgumentError, match="a pipeline of diffusers takes no lr_multiplier"):
        load_generator(folder / "pixels", lr_multiplier=0.01)
    with pytest.raises(ArgumentError, match="prompt cannot be given: .* is no pipeline"):
        load_generator(tmp_path, prompt="a")


def test_only_a_named_pipeline_of_a_hub_is_downloaded(folder, tmp_path, monkeypatch):
    calls = []

    def download(name, **options):
        calls.append((name, options))
        if options["local_files_only"] and len(calls) == 1:
            raise OSError("not in the cache\nof the hub")
        return str(folder / "pixels")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    settings = {"kind": "diffusers", "pipeline": "hub:owner/name@v1", "call": STEPS}
    (tmp_path / "config.json").write_text(
        json.dumps({"format": 1, "name": "m", "truncation": 1, "generator": settings})
    )
    with pytest.raises(
        ModelError, match="there is no pipeline hub:owner/name@v1: OSError: not in the cache\n.*downloads it"
    ):
        load_generator(tmp_path)
    assert load_generator("hub:owner/name@v1", **STEPS).config.pipeline == "hub:owner/name@v1"
    assert [options["local_files_only"] for _, options in calls] == [True, False, True]
    assert all(
        name == "owner/name" and options["revision"] == "v1" and options["use_safetensors"] for name, options in calls
    )
    with pytest.raises(ArgumentError, match="no name of a pipeline"):
        load_generator("hub:name")


@pytest.mark.slow
def test_the_page_about_noise_runs(tmp_path, monkeypatch):
    """docs/noise.md"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = run_page(ROOT / "docs" / "noise.md", elsewhere=lambda words: words[:2] == ["pip", "install"])
    assert np.array_equal(names["picture"], names["one"].images[0])
    assert len(list((tmp_path / "pictures").glob("*.png"))) >= 8


def test_the_missing_library_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(ArgumentError, match="needs diffusers.*not installed\npip install .*diffusers"):
        load_generator(folder / "pixels")
