import numpy as np
import pytest
import torch
from commanding import command

pytest.importorskip("python_avatars")

from benchmarks import words
from energyql.language import parse, predicates
from recipes.common.factors import Factors
from recipes.words.facts import SUBJECTS


def test_queries_and_texts_state_facts():
    named = {str(node.name) for query in words.QUERIES for node in predicates(parse(query))} | {*words.TEXTS}
    assert named <= words._STATED.keys()
    z = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    truth = words.truths(z, named)
    assert np.array_equal(truth["a beard"], Factors(SUBJECTS[0].domain)(z).labels["beard"].numpy())


def test_a_missing_folder(tmp_path):
    done = command(words, str(tmp_path / "missing"), resumes=False)
    assert done.returncode == 2 and "there is no reader at" in done.stderr
