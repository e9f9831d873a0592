"""Several workers by Ray: the same bytes, also where a worker is killed; and clear words without Ray."""

import os
import signal
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import FunctionType, SimpleNamespace

import pytest

from dataset.kinds import KINDS, plan_of
from dataset.plans import TOML, files, known_plan, with_classes, write
from energyql.dataset.plan import Job, PlanSource, read_plan
from energyql.dataset.run import _portable, _result, run_on_ray
from energyql.dataset.settings import DatasetSettings
from energyql.dataset.shard import prepare_plan
from energyql.errors import ArgumentError, EnergyQLError, ModelError
from energyql.pipeline.model import judge_mark, load_model
from energyql.pipeline.source import ModelSource

with_ray = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster():
    """One cluster for all tests of this file."""
    ray = pytest.importorskip("ray", reason='Ray is missing: pip install "ray>=2.56"')
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray itself
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield ray
        ray.shutdown()


@pytest.fixture
def plan(tmp_path, tiny):
    path = tmp_path / "plan.toml"
    path.write_text(TOML.replace("MODEL", str(tiny)).replace("shard_size = 10", "shard_size = 3"))
    return path


def workers_of(ray):
    """The process ids of living workers, by what they call themselves."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                if file.read().startswith(b"ray::Worker"):
                    found.append(int(entry))
        except (OSError, ValueError):
            continue
    return found


@with_ray
@pytest.mark.filterwarnings("ignore")
def test_two_workers_write_the_same_bytes(cluster, plan, tmp_path):
    write(plan, tmp_path / "one")
    written = write(plan, tmp_path / "two", workers=2)
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert written.kept == 0
    assert write(plan, tmp_path / "two", workers=2).kept == 11


@with_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="workers are found in /proc")
def test_killed_workers_are_started_again(cluster, plan, tmp_path):
    write(plan, tmp_path / "one")
    killed = []

    def kill(name, fraction):
        """After the first shards, one of the workers that draw."""
        if len(killed) < 2:
            for pid in workers_of(cluster)[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    write(plan, tmp_path / "two", workers=2, progress=kill)
    assert len(killed) == 2
    assert files(tmp_path / "two") == files(tmp_path / "one")


@with_ray
@pytest.mark.filterwarnings("ignore")
def test_more_workers_than_fit_take_turns(cluster, plan, tmp_path):
    """Those that wait for a place have shards as well, which would never be drawn if nobody left."""
    write(plan, tmp_path / "one")
    write(plan, tmp_path / "four", workers=4)
    assert files(tmp_path / "four") == files(tmp_path / "one")


@with_ray
@pytest.mark.filterwarnings("ignore")
def test_a_worker_without_memory(cluster, plan, tmp_path):
    here = os.getpid()

    def greedy(images):
        if os.getpid() != here:
            raise MemoryError("no room")
        return dict.fromkeys(("glasses", "beard"), images[:, 0, 0, 0] > 0)

    with pytest.raises(EnergyQLError, match=r"a worker has not enough memory for shard \d"):
        write(plan, tmp_path / "out", workers=6, judge=greedy)


@with_ray
@pytest.mark.filterwarnings("ignore")
def test_workers_with_more_gpus_than_there_are(cluster, plan, tmp_path):
    with pytest.raises(ArgumentError, match="no machine of Ray has the GPUs of one worker, 0.5"):
        write(plan, tmp_path / "out", workers=2, gpus=0.5)


@with_ray
@pytest.mark.filterwarnings("ignore")
def test_errors_of_workers_are_shown(cluster, plan, tmp_path):
    """The folder cannot be written any more when the workers begin."""
    settings = DatasetSettings(address="auto", device="cpu")
    job = Job(plan=read_plan(plan)[0], out=tmp_path / "file" / "out", settings=settings)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ModelError, match="a worker has other models"):
        list(run_on_ray(job, "another", [(0, None)]))
    with pytest.raises(ArgumentError, match="cannot write"):
        list(run_on_ray(job, prepare_plan(job, PlanSource()).fingerprint, [(0, None)]))


@with_ray
@pytest.mark.filterwarnings("ignore")
def test_workers_without_a_module_of_the_model(cluster, tmp_path, tiny, monkeypatch):
    (tmp_path / "only_here.py").write_text("class Judge:\n    def __call__(self, images):\n        return {}\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = replace(load_model(tiny), judge=import_module("only_here").Judge())
    with pytest.raises(EnergyQLError, match="no worker can be started: .*No module named 'only_here'"):
        write(with_classes(known_plan(), model=model, query="smile"), tmp_path / "out", workers=2)


@with_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_workers_draw_with_models_of_every_kind(tmp_path, monkeypatch, tiny, kind):
    """On a cluster of their own, whose workers find modules in the working directory of this process."""
    ray = pytest.importorskip("ray")
    ray.shutdown()  # of other tests
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # of the classes of a model in memory
    plan, settings = plan_of(kind, tmp_path, tiny)
    write(plan, "one", **settings)
    write(plan, "two", workers=2, **settings)
    assert files("two") == files("one")
    assert not ray.is_initialized()


def test_a_judge_of_a_notebook_is_known_to_workers(tmp_path):
    def look(images):
        return {"b": images[:, 0, 0, 0] > 0}

    judge = _portable(Job(plan=known_plan(), out=tmp_path, source=ModelSource(judge=look))).source.judge
    sent = FunctionType(judge.__code__.replace(co_filename="notebook"), {}, "look")
    assert judge_mark(sent) != judge_mark(look)
    sent.__dict__.update(judge.__dict__)
    assert judge_mark(sent) == judge_mark(look)


def test_a_worker_without_memory_is_named():
    """Ray wraps the errors of tasks in errors of its own; those of other classes stay as they are."""

    class TaskError(Exception):
        pass

    def get(cause):
        error = TaskError("in a worker")
        error.cause = cause
        raise error

    ray = SimpleNamespace(get=get, exceptions=SimpleNamespace(RayTaskError=TaskError, RayError=TaskError))
    with pytest.raises(EnergyQLError, match="a worker has not enough memory for shard 3") as caught:
        _result(ray, MemoryError("no room"), 3)
    assert caught.value.hint == "is there enough memory? The same command continues, with fewer workers if there is not"
    with pytest.raises(TaskError, match="in a worker"):
        _result(ray, KeyError("a"), 3)


def test_without_ray_several_workers_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for settings in ({"workers": 2}, {"address": "auto"}):
        with pytest.raises(ArgumentError, match="need Ray, which is not installed") as caught:
            write(known_plan(), tmp_path / "out", **settings)
        assert caught.value.hint == 'pip install "ray>=2.56"'
    assert list(tmp_path.iterdir()) == []


def test_an_old_ray_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(__version__="2.55.1"))
    with pytest.raises(ArgumentError, match=r"Ray 2\.55\.1 is too old: at least 2\.56 is needed"):
        write(known_plan(), tmp_path / "out", workers=2)


@pytest.mark.parametrize(("address", "what"), [(None, "started"), ("host:6379", "reached")])
def test_a_ray_that_does_not_start_is_named(tmp_path, monkeypatch, address, what):
    """In words of its own, which are no error of a particular kind."""

    def init(**settings):
        raise Exception("the node timed out")

    ray = SimpleNamespace(__version__="2.56.0", is_initialized=lambda: False, init=init)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(ArgumentError, match=f"Ray cannot be {what}: the node timed out"):
        write(known_plan(), tmp_path / "out", workers=2, address=address)


@pytest.mark.parametrize("workers", [0, 1.5, True])
def test_a_wrong_number_of_workers(tmp_path, workers):
    with pytest.raises(ArgumentError, match="workers must be a whole number"):
        write(known_plan(), tmp_path / "out", workers=workers)
