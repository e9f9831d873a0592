"""A model on a device, with what is fitted or read once for it: all that stays between two runs of one process.

The session of a model stays, and what `Session.__init__` lists, each with its key. A `Model` in memory has its sessions
in `Model.sessions`. Caches of single modules stay too; their results depend on the arguments alone:

- `attributes.backbones.open_backbone(name, device)`: frozen networks whose layers readers read
- `attributes.judge._averages(size, side, device, dtype)`: matrix that shrinks pictures for a judge
- `attributes.predictions._index(indices, device)`: positions of classes on a device
- `attributes.words._opened(folder, mark)`: reader of words, until its files change
- `files._sweep_once(path)`: folders from which leftovers were removed
- `gallery.page._asset(name)`: style sheet and script of a page
- `language.lexical._keyword()`: pattern of the keywords
- `language.lexical.grammar()`: text of the grammar
- `language.lexical.keywords()`: reserved words
- `language.parser._lark()`: parser
- `logic.diagram._connected(vocabulary)`: relations of a vocabulary, in groups
- `numerics.linear.sizes_alike(dtype, outputs, inputs, threads)`: sizes of batches with the same bits
- `pipeline.session._session(folder, device, last_change)`: sessions of four models, until their files change
- `render.pictures._font(name, size)`: fonts
- `render.pictures._has(name, letter)`: letters of a font
- `sampling.ode.read_tableau(method)`: coefficients of a solver
- `sampling.ode.solvers()`: solvers of torchdiffeq
- `sampling.rejection._pilot(count, z_dim)`: draws from the prior that show how common a query is
- `sampling.smc.particles_of(surrogate, strength, dtype, number)`: particles, from which proposals come

Objects that a session or the process keeps hold what was computed by them once:

- `Session`: `names_read`, `defined`, `compiled`, and what `__init__` lists
- `AttributeBank._raw`: heads joined to one network, by the names of the attributes
- `convolution.Modulation._cached`: weights of a layer, prepared for the processor
- `PipelineGenerator._draft_sizes`: sizes of drafts of a pipeline
- `DualEncoder._encoded`: the last texts, encoded by a reader of words
- `studio.tasks._SPACES`: maps from z to w, of the studio

A second `generate` computes anew the tree, the circuit and the energy of the query, the trials that a sampler keeps in
`Energy.sampler_cache`, and the calibration with its pilot run. A second run of one plan finds its energy,
if heads read latents; of a plan that `calibrate` returned, also the calibration.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from energyql.attributes.heads import AttributeBank
from energyql.attributes.surrogates import MOST_NUMBERS, SurrogateHeads
from energyql.energy.query_energy import Encode
from energyql.errors import ArgumentError, either
from energyql.files import naming_source, real_path
from energyql.generators.base import Condition, Generator, PromptedGenerator
from energyql.language import Expr, as_query, bind
from energyql.language.lexical import shorten
from energyql.models import model_folder
from energyql.numerics.compiled import compiled
from energyql.pipeline.checks import check_heads, weak_heads
from energyql.pipeline.examination import Examination, check_examined, examine
from energyql.pipeline.model import Model, choose_device, load_model
from energyql.pipeline.settings import DrawSettings
from energyql.pipeline.source import ModelSource
from energyql.pipeline.texts import PriorPictures, texts_of, with_texts_read
from energyql.pipeline.verifier import defined_names, names_read

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""Characters that no prompt has: they cannot be written to files, or are lost in arrays."""
_log = logging.getLogger("energyql")


class Session:
    """A model on a device, with what is fitted or read once for it: queries are planned and run on a session.

    Args:
        model: a loaded model; its torch modules are moved to the device.
        device: device for all computations.
    """

    texts: Sequence[str] = ()
    """Texts in quotes that are attributes of the model; see `with_texts`."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self.model = model.to(device)
        self.device = device
        # By truncation and condition, or by texts with both, or by prompt:
        self._surrogates: dict[tuple[float, Condition | None], Callable[[], SurrogateHeads]] = {}
        self._reading: dict[tuple[tuple[str, ...], float, Condition | None], Session] = {}
        self._prompted: dict[str, Session] = {}
        self._prior: dict[tuple[float, Condition | None], PriorPictures] = {}
        self._examined: dict[tuple[float, Condition | None], Examination] = {}
        self._seen: set[str] = set()  # texts that the reader of words may decide about

    @cached_property
    def names_read(self) -> Collection[str]:
        """Attributes that the model's verifier reads, or its judge if it has no verifier."""
        return names_read(self.model)

    @cached_property
    def defined(self) -> Collection[str]:
        """Attributes that code defines, which reads them off pictures in place of heads."""
        return defined_names(self.model)

    @cached_property
    def compiled(self) -> Callable[..., Tensor]:
        """The generator's function from w to pictures, compiled by `torch.compile`."""
        generator = self.model.generator
        draw: Callable[..., Tensor] = compiled(generator.synthesize, f"the pictures of a {type(generator).__name__}")
        return draw

    def reading(self, queries: Sequence[str | Expr], settings: DrawSettings) -> Session:
        """Return a session that has the texts in quotes of all queries as attributes; this one without texts."""
        self.model.check_truncation(settings.truncation)
        self.model.check_condition(settings.condition, settings.seed)
        texts: list[str] = []
        for expr, text in map(as_query, queries):
            texts += self.check_texts(bind(expr, self.model.vocabulary, query=text), settings, text)
        return self.with_texts(texts, settings) if texts else self

    def check_texts(self, expr: Expr, settings: DrawSettings, query: str) -> list[str]:
        """Return the texts in quotes of a query that `bind` has checked; `query` is its text, for errors.

        Raises:
            WeakHeadError: a text is calibrated, and the reader is not clearly better than chance for it.
        """
        words = self.model.words
        if words is None:  # then `bind` accepts no texts
            return []
        texts = texts_of(expr, self.model.vocabulary)
        reports = {text: report for text in texts if (report := words.calibration(text).report) is not None}
        check_heads(expr, weak_heads(texts, reports, settings.allow_weak), query, guide="reader")
        return texts

    def under(self, prompt: str) -> Session:
        """Return a session whose generator draws pictures of another prompt, for a generator that takes prompts.

        The sessions of earlier calls are kept; for the generator's own prompt, this session is returned.

        Raises:
            ArgumentError: the attributes were learned from pictures of the generator's own prompt, the generator takes
                no prompt, or the prompt is no text that files can hold.
        """
        if _NO_TEXT.search(prompt):
            wrong = f"the prompt {shorten(repr(prompt))} holds a character that is no text"
            raise ArgumentError(wrong, hint="half a character or a zero: see to the encoding of your terminal or file")
        if prompt not in self._prompted:
            generator, bank = cast(PromptedGenerator, self.model.generator), self.model.bank
            other = generator.under(prompt)
            if other is generator:
                return self
            if not bank.reads_pictures or bank.fitted.generator:
                problem = f"the attributes of model {self.model.name!r} were learned from pictures of another prompt"
                train = either('condition="random"', "--condition random")
                hint = f"make the generator with a list of all prompts, and train with {train}"
                raise ArgumentError(problem, hint=hint)
            model = replace(self.model, generator=other, held_out=(), judge_report={})
            self._prompted[prompt] = Session(model, self.device)
        return self._prompted[prompt]

    def with_texts(self, texts: Sequence[str], settings: DrawSettings) -> Session:
        """Return a session whose model has texts about pictures as further attributes; see `energyql.pipeline.texts`.

        Raises:
            ArgumentError: the truncation or the condition of the settings is impossible for the model.
            WeakHeadError: the reader of words may not decide about a text.
        """
        names = tuple(sorted({*texts}))
        psi = self.model.check_truncation(settings.truncation)
        condition = self.model.check_condition(settings.condition, settings.seed)
        key = names, psi, condition  # the heads of texts are fitted to pictures under both
        self._check_reader(names, settings, psi, condition)
        if key not in self._reading:
            prior = self._prior_pictures(psi, condition)
            session = Session(with_texts_read(self.model, names, prior, defined=bool(self.defined)), self.device)
            session.texts, session._examined = names, self._examined  # before another thread can find it
            self._reading[key] = session
        return self._reading[key]

    def _prior_pictures(self, psi: float, condition: Condition | None) -> PriorPictures:
        return self._prior.setdefault((psi, condition), PriorPictures(self.model, psi, condition))

    def examination(self, settings: DrawSettings) -> Examination:
        """Return what the examination of the model's reader of words found, made once for a truncation and condition.

        Raises:
            ArgumentError: the model has no reader of words, or the truncation or condition is impossible for it.
        """
        if self.model.words is None:
            hint = "name a folder of transformers or open_clip, or an object with the method read(pictures, texts)"
            raise ArgumentError(f"model {self.model.name!r} has no reader of words to examine", hint=hint)
        psi = self.model.check_truncation(settings.truncation)
        condition = self.model.check_condition(settings.condition, settings.seed)
        if (psi, condition) not in self._examined:
            self._examined[psi, condition] = examine(self._prior_pictures(psi, condition))
        return self._examined[psi, condition]

    def about_texts(self, psi: float, condition: Condition | None) -> dict[str, Any]:
        """Return what provenance records about the reader of the texts in quotes; {} without texts."""
        words = self.model.words
        if not self.texts or words is None:
            return {}
        examined = self._examined.get((psi, condition))
        doubts = "" if examined is None else examined.doubts(self.texts)
        entry = {"reader": words.name, "texts": {name: str(words.calibration(name)) for name in self.texts}}
        return entry | ({"doubts": doubts} if doubts else {})

    def _check_reader(
        self, texts: Sequence[str], settings: DrawSettings, psi: float, condition: Condition | None
    ) -> None:
        words = self.model.words
        assert words is not None
        if zero_shot := [text for text in texts if not words.calibration(text).labels]:
            examination, allowed = self.examination(settings), {*settings.allow_weak, *self._seen}
            unseen = [text for text in zero_shot if text not in allowed]
            check_examined(examination, unseen, self._prior_pictures(psi, condition))
            self._seen.update(unseen)

    def surrogates_under(
        self, psi: float, condition: Condition | None, reads: Encode
    ) -> Callable[[], SurrogateHeads] | None:
        """Return a function that returns small heads on z, which imitate the model's heads, fitted at its first call.

        `None` if z has too many numbers, or attributes are read off pictures. `reads` maps z to the input of the heads.
        """
        heads, z_dim = self.model.bank, self.model.generator.z_dim
        if not isinstance(heads, AttributeBank) or z_dim > MOST_NUMBERS:
            return None
        return self._surrogates.setdefault((psi, condition), cache(partial(SurrogateHeads, heads, reads, z_dim)))


def open_session(model: str | Path | Model | ModelSource | Session, device: str = "auto") -> Session:
    """Return a model on a device as a `Session`, which compiles and runs queries.

    The last four models that were loaded by name or path stay in memory. A model is loaded again after a file in its
    folder has changed.

    Args:
        model: name of a packaged model, a model folder, or a `Model` in memory; a `ModelSource` whose code is used is
            loaded anew. A `Session` is returned unchanged, and `device` is ignored.
        device: "auto", "cpu", "cuda" and so on. "auto" is the device of a `Model` in memory; otherwise a GPU if there
            is one, else the CPU.

    Raises:
        ModelError: there is no such model, or it is damaged.
        ArgumentError: there is no such device.
    """
    if isinstance(model, Session):
        return model
    if isinstance(model, ModelSource):
        if not model.is_plain:
            return open_session(load_model(model, device), device)
        model = cast("str | Path | Model", model.model)
    if isinstance(model, Model):
        target = model.device if device == "auto" else choose_device(device)
        session, weights = model.sessions.get(target, (None, None))
        if session is None or weights != _weights(model.generator):  # what was fitted to them holds no longer
            session = Session(model, target)
            model.sessions[target] = session, _weights(model.generator)
        else:
            model.to(target)  # a call with another device has moved its modules
        return cast(Session, session)
    folder = real_path(model_folder(model))
    with naming_source(folder):
        # Hidden files are temporary files of writers.
        files = (file for file in folder.iterdir() if not file.name.startswith("."))
        last_change = max((file.stat(follow_symlinks=file.exists()).st_mtime_ns for file in files), default=0)
    return _session(folder, str(choose_device(device)), last_change)


def _weights(generator: Generator) -> list[tuple[int, int]]:
    """Identity and version of each parameter, by which a later call notices that PyTorch changed or replaced one."""
    parameters = generator.parameters() if isinstance(generator, torch.nn.Module) else ()
    return [(id(parameter), 0 if parameter.is_inference() else parameter._version) for parameter in parameters]


@lru_cache(maxsize=4)
def _session(folder: Path, device: str, last_change: int) -> Session:
    """Load a model, or return the session of an earlier call; `last_change` (ns) differs after a file has changed."""
    _log.debug("loading %s on %s", folder, device)
    return Session(load_model(folder, device), torch.device(device))
