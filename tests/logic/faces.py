"""A vocabulary for the tests of this folder, and expressions for its attributes."""

from energyql.language import Attribute
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary(
    [
        *(AttributeSpec(name, "yes/no") for name in ["smile", "glasses", "beard", "hat", "5 o'clock shadow"]),
        AttributeSpec("hair", "categorical", values=("black", "dark brown", "red", "gray")),
        AttributeSpec("age", "continuous"),
        *(AttributeSpec(f"a{i}", "yes/no") for i in range(100)),
    ]
)
SMILE, GLASSES, BEARD, HAT = map(Attribute, ["smile", "glasses", "beard", "hat"])
A = [Attribute(f"a{i}") for i in range(100)]
