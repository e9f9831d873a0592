"""Short trainings on a tiny StyleGAN, without output."""

from labelled import CHECKPOINTS

from energyql.pipeline.generate import generate
from energyql.training.fitting import HeadSettings
from energyql.training.run import train_attributes

ADA = CHECKPOINTS / "ada.pkl"
SHORT = HeadSettings(steps=6, hidden=4, batch=16)


def train(model, labels, out=None, **more):
    return train_attributes(model, labels, out, **{"count": 60, "settings": SHORT, "progress": False} | more)


def draw(query, n, **settings):
    return generate(query, n, progress=False, **settings)


def bright(images):
    return {"bright": images.mean((1, 2, 3))}


def dark(images):
    return {"dark": -images.mean((1, 2, 3))}
