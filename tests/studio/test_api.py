"""The HTTP API on a real socket, with a tiny model."""

import pytest
from toys import VOCABULARY

from energyql.language.lexical import keywords
from energyql.sampling import SAMPLERS

QUERY = "smile AND NOT (glasses OR beard)"


class TestInfo:
    def test_all_that_can_be_chosen(self, studio):
        info = studio.get("/api/info").json()
        assert info["samplers"] == list(SAMPLERS)
        assert info["semantics"] == ["exact", "product", "lace"]
        assert set(info["keywords"]) == keywords()
        assert info["limits"]["pictures"] == 64

    def test_the_model(self, studio):
        (model,) = studio.get("/api/info").json()["models"]
        assert model["name"] == "tiny"
        assert [attribute["name"] for attribute in model["attributes"]] == list(VOCABULARY)
        hair = next(attribute for attribute in model["attributes"] if attribute["name"] == "hair")
        assert hair["values"] == ["black", "brown", '"dark red"']
        assert (model["truncation"], model["truncation_low"], model["truncation_high"]) == (0.7, 0.5, 1.0)
        assert model["judge"] == "image judge"

    def test_examples_are_queries_of_the_model(self, studio):
        (model,) = studio.get("/api/info").json()["models"]
        assert len(model["examples"]) >= 3
        for query in model["examples"]:
            assert studio.post("/api/check", {"query": query}).json()["ok"], query


class TestCheck:
    def check(self, studio, query, **settings):
        answer = studio.post("/api/check", {"query": query, **settings})
        assert answer.status == 200
        return answer.json()

    def test_a_query_and_its_circuit(self, studio):
        check = self.check(studio, "smile and (not glasses)")
        assert check["ok"]
        assert check["canonical"] == "smile AND NOT glasses"
        assert check["caption"] == "Compiled circuit"
        assert check["drawing"].startswith("<svg")
        assert "log P(query)" in check["explanation"]
        assert check["warnings"] == []

    def test_other_semantics_show_the_tree(self, studio):
        assert self.check(studio, QUERY, semantics="lace")["caption"].startswith("Tree")

    def test_unknown_names_with_their_places(self, studio):
        problem = self.check(studio, "smile AND NOT (glases OR beerd)")["problem"]
        assert problem["error"] == "UnknownAttribute"
        assert problem["spans"] == [[15, 21], [25, 30]]
        assert (problem["line"], problem["column"]) == (1, 16)
        assert problem["hint"] == "did you mean glasses, beard?"
        assert "^^^^^^    ^^^^^" in problem["drawing"]

    @pytest.mark.parametrize(
        ("query", "corrected"),
        [
            (
                "smile AND NOT (glases OR beerd)",
                ["smile AND NOT (glasses OR beerd)", "smile AND NOT (glases OR beard)"],
            ),
            ("smile OR hair IN {blak, brown}", ["smile OR hair IN {black, brown}"]),
            ("NOT black", ["NOT hair = black"]),
            ("hair AND smile", [f"hair = {v} AND smile" for v in ("black", "brown", '"dark red"')]),
            ("smile = yes", ["smile", "NOT smile"]),
            ("🙂", []),
            ("age", ["age > 0.5"]),
            ("entirely_other_word", []),
        ],
    )
    def test_corrections_can_be_made_by_a_click(self, studio, query, corrected):
        problem = self.check(studio, query)["problem"]
        made = [query[: s["span"][0]] + s["text"] + query[s["span"][1] :] for s in problem["suggestions"]]
        assert made == corrected
        for text in made if len(made) != 2 or "beerd" not in query else []:
            assert self.check(studio, text)["ok"]

    @pytest.mark.parametrize(
        ("query", "error", "spans"),
        [
            ("smile AND", "QuerySyntaxError", [[9, 9]]),
            ("", "QuerySyntaxError", [[0, 0]]),
            ("smile AND NOT smile", "Contradiction", [[0, 5], [10, 19]]),
            ("🙂 AND smile", "QuerySyntaxError", [[0, 1]]),
            ("smile\nAND hair", "KindError", [[10, 14]]),
            ("age > 7", "KindError", [[6, 7]]),
        ],
    )
    def test_other_mistakes(self, studio, query, error, spans):
        check = self.check(studio, query)
        assert not check["ok"]
        assert check["problem"]["error"] == error
        assert check["problem"]["spans"] == spans

    def test_a_query_that_asks_for_nothing_is_a_warning(self, studio):
        check = self.check(studio, "smile OR NOT smile")
        assert check["ok"]
        assert "always true" in check["warnings"][0]["message"]

    def test_a_part_that_is_never_true_is_a_warning_with_its_place(self, studio):
        check = self.check(studio, "glasses OR smile AND NOT smile")
        (warning,) = check["warnings"]
        assert (check["ok"], warning["error"]) == (True, "ConstantPartWarning")
        assert warning["message"] == "smile and NOT smile cannot both hold, so this part changes nothing"
        assert warning["spans"] == [[11, 16], [21, 30]]

    def test_a_query_that_is_too_long(self, studio):
        check = self.check(studio, "smile AND " * 500)
        assert check["problem"]["error"] == "LimitError"
        assert "4,000" in check["problem"]["message"]

    def test_markup_in_a_query_stays_text(self, studio):
        check = self.check(studio, 'smile OR hair = "<script>"')
        assert not check["ok"]
        assert self.check(studio, 'hair = "dark red"')["drawing"].count("<script") == 0
