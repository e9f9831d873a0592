"""`ModelSource`: the model that a user named, with code in place of what its folder holds. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from energyql.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from energyql.attributes.labels import ImageLabeller
    from energyql.attributes.words import Words
    from energyql.generators.base import Generator
    from energyql.pipeline.model import Model
else:
    ImageLabeller = Words = Generator = Model = object  # the command line reads the types of the fields


class CodeOptions(TypedDict, total=False):
    """Types of the fields of `ModelSource` beside `model`, for functions that take them as keyword arguments."""

    generator: Generator | str | None
    judge: ImageLabeller | str | None
    reader: ImageLabeller | Words | str | Path | None
    allow_plugins: bool


@dataclass(frozen=True)
class ModelSource:
    """A model, with the code that is used in place of what its folder holds. Code runs only if it is named or allowed.

    Functions take it as their argument `model`, such as `ModelSource("faces", generator="my_gan:make")`.

    Attributes:
        model: name of a packaged model, a model folder, a checkpoint, or a `Model`; a generator, or the name of its
            code.
        generator: the generator of a folder that has no generator's weights, or the name of code that makes it. The
            name is `module:factory`, or the name of an installed plugin. A factory is a class or function that is
            called without arguments and returns the generator.
        judge: judge to use instead of the folder's judge: a function or torch module from pictures to attributes, or
            the name of its code, such as "my_labels:look". "none" is for neither judge nor verifier. A function defines
            the attributes of a model of your own, so it is also the verifier, which decides which pictures are kept.
        reader: reader of texts about pictures, so that queries may have them in quotes: the path of a folder of
            transformers or open_clip, an object with the method `read(pictures, texts)`, or the name of its code. For
            a folder whose attributes are read off pictures, a network, function or name of code replaces their reader.
        allow_plugins: whether code may be imported that the folder names as its generator, judge or reader. This
            machine records it, so it is needed once, until the code changes.
    """

    model: str | Path | Generator | Model = DEFAULT_MODEL
    generator: Generator | str | None = None
    judge: ImageLabeller | str | None = None
    reader: ImageLabeller | Words | str | Path | None = None
    allow_plugins: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether no code is named or allowed."""
        return (self.generator, self.judge, self.reader, self.allow_plugins) == (None, None, None, False)
