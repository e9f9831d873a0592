"""Short trainings on a tiny StyleGAN, without output."""

from labelled import CHECKPOINTS

from energyql.pipeline.generate import generate
from energyql.pipeline.model import Model, load_model
from energyql.training.heads import HeadSettings
from energyql.training.run import train_attributes

ADA = CHECKPOINTS / "ada.pkl"
SHORT = HeadSettings(steps=6, hidden=4, batch=16)


def train(model, labels, out=None, **more):
    n = 60 if callable(labels) else 0
    return train_attributes(model, labels, out, **{"n": n, "settings": SHORT, "judge": None, "progress": False} | more)


def draw(query, n, **settings):
    """Draw; heads that were trained so shortly are weak, and allowed."""
    model = settings["model"]
    settings.setdefault("allow_weak", list((model if isinstance(model, Model) else load_model(model)).vocabulary))
    return generate(query, n, progress=False, **settings)


def bright(images):
    return {"bright": images.mean((1, 2, 3))}


def dark(images):
    return {"dark": -images.mean((1, 2, 3))}
