"""Pairs of commands that write one folder at the same time: `python -m pairs FOLDER SEED COUNT KIND...`.

The library is imported once, and each command is a fork of this process. Both have the same seed or different ones,
start within a moment of each other, and in two of five pairs one of them is killed (SIGKILL) at a random moment. What
the folder holds afterwards must be what one of the commands leaves if it is alone, or the beginning of it; a command
that is refused must have met the other one alive; and a further command must find the folder free.
"""

import hashlib
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch
from short import TINY
from toys import tiny_model
from training.brief import bright, train

from energyql import Gallery, Preset, edit, generate, stream, write_dataset
from energyql.cli.failures import reporting_failures
from energyql.dataset import DatasetClass, DatasetPlan
from energyql.dataset.manifest import arrow
from energyql.files import fingerprint, finish_saving, sole_writer
from energyql.pipeline import run
from energyql.pipeline.model import load_model
from energyql.training.judge import train_judge

SETTINGS = {"device": "cpu", "progress": False}
BUSY = re.compile(r"ArgumentError: \S+ is being written by (.*)\nwait until that has ended, or name another folder\n")
OTHER_RUN = re.compile(
    r"DataError: .* holds a (?:run of another seed: |data set of another plan: seed).*\nname another .*\n"
)


def write_run(folder, seed):
    for _ in stream("smile", 6, model=MODEL, seed=seed, out=folder, **SETTINGS):
        pass


def write_result(folder, seed):
    with sole_writer(folder, "a run"):  # as the command with a budget
        generate("smile", 3, model=MODEL, seed=seed, **SETTINGS).save(folder)


def write_edit(folder, seed):
    with sole_writer(folder, "an edit"):  # as the command
        steps = ["smile", "glasses"][: 1 + seed % 2]
        edit(seed, steps, n=2, model=MODEL, preset=Preset(max_evaluations=3), **SETTINGS).save(folder)


def write_gallery(folder, seed):
    with sole_writer(folder, "a gallery"):  # as the command
        page = Gallery(n=2, model=MODEL, seed=seed, **SETTINGS)
        page.add("smile")
        page.save(folder)


def write_data(folder, seed):
    classes = [DatasetClass(name="s", query="smile", count=3, model=MODEL)]
    write_dataset(DatasetPlan(classes=classes, seed=seed, shard_size=1), folder, **SETTINGS)


def write_model(folder, seed):
    if not (folder / "config.json").is_file():
        shutil.copytree(PLAIN, folder, dirs_exist_ok=True)
    train(folder, bright, seed=seed, replace=True)


def write_new_model(folder, seed):
    train(PLAIN, bright, folder, seed=seed, replace=True)


def write_judge(folder, seed):
    if not (folder / "config.json").is_file():
        shutil.copytree(PLAIN, folder, dirs_exist_ok=True)
    train_judge(folder, smiling, n=40, seed=seed, settings=TINY, progress=False)


def smiling(images):
    mean = images.mean((1, 2, 3))
    return {"smile": mean > mean.median(), "age": mean}


KINDS = {
    "run": write_run, "result": write_result, "edit": write_edit,
    "gallery": write_gallery, "data": write_data, "model": write_model,
    "new-model": write_new_model, "judge": write_judge,
}  # fmt: skip
CONTINUED = {"run", "data"}
"""Kinds of which a folder is continued by the same command, and refused to others."""
GROWING = re.compile(r"^(?:result\.json|latents\.safetensors|grid\.png|parts/.*)$")
"""Files that are others before the last batch or shard."""


def digests(folder):
    """What each file holds, without what differs between equal runs: seconds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.suffix == ".json":
            text = re.sub(r'"seconds\w*": [^,\n]*', "", path.read_text())
            found[name] = hashlib.sha256(text.encode()).hexdigest()
        elif path.suffix == ".html":
            found[name] = re.findall(r"data:image/[^\"]*", path.read_text())
        else:
            found[name] = fingerprint(path)
    return found


def fork(work, delay, log, start):
    """Start a command as a process that writes its messages to a file and its end to another."""
    if pid := os.fork():
        return pid
    time.sleep(max(0, start + delay - time.monotonic()))
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    code = 0
    try:
        log.with_suffix(".begin").write_text(str(time.monotonic()))
        with reporting_failures():
            work()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 99
    os._exit(code)


def pair(kind, seeds, delays, kill, folder):
    """Run two commands; return the exit code of each, None if it was killed, and what it wrote on standard error."""
    write, logs, start = KINDS[kind], [folder.with_name(f"{i}.log") for i in range(2)], time.monotonic()
    pids = [
        fork(lambda seed=seed: write(folder, seed), delay, log, start)
        for seed, delay, log in zip(seeds, delays, logs, strict=True)
    ]
    codes, ends, left = [None, None], [0.0, 0.0], {0, 1}
    while left:
        if kill is not None and kill[0] in left and time.monotonic() > start + kill[1]:
            os.kill(pids[kill[0]], signal.SIGKILL)
            kill = None
        for i in list(left):
            done, status = os.waitpid(pids[i], os.WNOHANG)
            if done:
                left.remove(i)
                ends[i] = time.monotonic()
                codes[i] = None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        time.sleep(0.001)
    begins = [float(log.with_suffix(".begin").read_text()) if log.with_suffix(".begin").exists() else 0 for log in logs]
    texts = [log.read_text() if log.exists() else "" for log in logs]
    for log in logs:
        for path in (log, log.with_suffix(".begin")):
            path.unlink(missing_ok=True)
    return pids, codes, texts, begins, ends


def check_texts(kind, seeds, pids, codes, texts, begins, ends):
    for i, (code, text) in enumerate(zip(codes, texts, strict=True)):
        if code == 0 or code is None:
            assert text == "", (code, text)
        elif code == 2:
            told = BUSY.fullmatch(text)
            assert told, text
            assert told[1] == "another process" or f"(process {pids[1 - i]} on " in told[1], (pids, text)
            assert ends[1 - i] > begins[i], "it was refused although the other one had ended"
        else:
            assert code == 9, (code, text)
            assert OTHER_RUN.fullmatch(text), text
            assert kind in CONTINUED, text
            assert seeds[0] != seeds[1], text
    assert 0 in codes or None in codes, (codes, texts)


def seed_of(kind, found, references):
    """Of which seed all files of a folder are."""
    for seed, reference in references.items():
        whole = {name: value for name, value in found.items() if kind in CONTINUED and not GROWING.search(name)}
        if found == reference or (whole and whole.items() <= reference.items()):
            return seed
    raise AssertionError(f"the folder is mixed: {[*found]}")


def main(base, count, kinds):
    outcomes, references, lengths = Counter(), {}, {}
    for kind in kinds:
        write = KINDS[kind]
        references[kind] = {}
        for seed in (1, 2):
            folder, started = base / f"{kind}-{seed}" / "D", time.monotonic()
            write(folder, seed)
            lengths[kind] = time.monotonic() - started
            references[kind][seed] = digests(folder)
        assert references[kind][1] != references[kind][2], kind
    for number in range(count):
        kind = kinds[number % len(kinds)]
        place, length = base / f"pair-{number}", lengths[kind]  # new: a process sweeps a folder once
        folder = place / "D"
        place.mkdir()
        if kind in ("model", "judge"):
            shutil.copytree(PLAIN, folder)
        before = digests(folder)
        seeds = (1, chance.choice([1, 2, 2]))
        delays = chance.choice([(0, 0), (0, chance.uniform(0, 0.02)), (0, chance.uniform(0, 2 * length))])
        kill = (chance.randrange(2), chance.uniform(0, 2 * length)) if chance.random() < 0.4 else None
        ended = pair(kind, seeds, delays, kill, folder)
        codes = ended[1]
        print(f"pair {number} of {kind}, seeds {seeds}, delays {delays}, kill {kill}: {codes}", flush=True)
        check_texts(kind, seeds, *ended)
        with suppress(FileNotFoundError):
            finish_saving(folder)
        found = digests(folder)
        seed = 1 if found == before else seed_of(kind, found, references[kind])
        assert 0 not in codes or found in references[kind].values()
        KINDS[kind](folder, seed)  # which finds the folder free
        assert digests(folder) == references[kind][seed], "the folder was not continued"
        assert [*folder.rglob(".energyql*")] == []
        outcomes[(kind, *sorted("killed" if code is None else str(code) for code in codes))] += 1
        shutil.rmtree(place)
    for outcome, times in sorted(outcomes.items()):
        print(*outcome, times)
    print(f"{count} pairs")


if __name__ == "__main__":
    torch.set_num_threads(1)  # a fork does not have the threads of its parent
    arrow()[0].array([])  # imported here, once
    chance, run.STREAM_BATCH = random.Random(int(sys.argv[2])), 2
    PLAIN = tiny_model(Path(sys.argv[1]) / "plain")
    MODEL = load_model(tiny_model(Path(sys.argv[1]) / "tiny"))
    main(Path(sys.argv[1]), int(sys.argv[3]), sys.argv[4:] or [*KINDS])
