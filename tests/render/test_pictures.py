import numpy as np
import pytest
import torch
from markup import decode
from PIL import Image, ImageColor, ImageFont

from energyql.errors import ArgumentError
from energyql.render import pictures
from energyql.render.pictures import (
    CAPTION,
    DOUBTFUL,
    GAP,
    NOTE_LINE,
    Cell,
    columns_for,
    font_for,
    label_grid,
    picture_uri,
    to_pictures,
)

RED, WHITE = (255, 0, 0), (255, 255, 255)


def solid(size=(128, 128), colour=RED):
    return Image.new("RGB", size, colour)


def dark(sheet, box):
    """Pixels in a box that are ink."""
    return int((np.asarray(sheet.crop(box).convert("L")) < 200).sum())


class TestToPictures:
    def test_the_range(self):
        images = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).reshape(1, 1, 1, 5).expand(1, 3, 1, 5)
        (picture,) = to_pictures(images)
        assert picture.size == (5, 1)
        assert [picture.getpixel((x, 0))[0] for x in range(5)] == [0, 0, 128, 255, 255]

    def test_channels_and_axes_keep_their_place(self):
        images = torch.full((2, 3, 4, 6), -1.0)
        images[1, 2, 3, 0] = 1.0
        first, second = to_pictures(images)
        assert first.size == second.size == (6, 4)
        assert second.getpixel((0, 3)) == (0, 0, 255)
        assert first.getcolors() == [(24, (0, 0, 0))]

    @pytest.mark.parametrize("shape", [(1, 4, 2, 2), (1, 2, 2, 2), (3, 2, 2)])
    def test_other_channels_are_refused(self, shape):
        with pytest.raises(ArgumentError, match=r"pictures must be \(batch, 1 or 3, height, width\), not"):
            to_pictures(torch.zeros(shape))

    def test_gray_and_half_precision(self):
        (picture,) = to_pictures(torch.ones(1, 1, 2, 2, dtype=torch.bfloat16))
        assert picture.mode == "RGB"
        assert picture.getpixel((0, 0)) == (255, 255, 255)


class TestGrid:
    @pytest.mark.parametrize(
        ("count", "columns", "shape"),
        [
            (1, None, (1, 1)),
            (4, None, (2, 2)),
            (5, None, (3, 2)),
            (8, None, (4, 2)),
            (12, None, (4, 3)),
            (16, None, (4, 4)),
            (23, None, (6, 4)),
            (5, 2, (2, 3)),
            (3, 9, (3, 1)),
        ],
    )
    def test_layout(self, count, columns, shape):
        """The last row is full or centred."""
        sheet = label_grid([Cell(solid())] * count, columns=columns)
        wide, high = shape
        assert sheet.size == (max(wide * (128 + GAP) + GAP, 320), GAP + high * (128 + GAP))
        for i in range(count):
            in_row = min(wide, count - i // wide * wide)
            x = GAP + (i % wide) * (128 + GAP) + (wide - in_row) * (128 + GAP) // 2
            y = GAP + (i // wide) * (128 + GAP)
            assert sheet.getpixel((x, y)) == sheet.getpixel((x + 127, y + 127)) == RED
            assert sheet.getpixel((x - 1, y)) == WHITE

    def test_the_last_row_is_full_where_a_shape_allows_it(self):
        for count in range(1, 65):
            columns, allowed = columns_for(count), [each for each in range(1, 17) if count <= each**2 <= 4 * count]
            assert columns in allowed
            assert count % columns == 0 or all(count % each for each in allowed)

    def test_letters_that_the_font_lacks_lose_their_accents(self):
        drawn = label_grid([Cell(solid(), "Ærø")], title="größe > 0.5 – été", footer="naïve Łódź")
        plain = label_grid([Cell(solid(), "AEro")], title="grosse > 0.5 - ete", footer="naive Lodz")
        assert (np.asarray(drawn) == np.asarray(plain)).all()

    def test_no_columns_and_no_pictures(self):
        with pytest.raises(ArgumentError, match="at least one column, not 0"):
            label_grid([Cell(solid())], columns=0)
        with pytest.raises(ArgumentError, match="at least one picture"):
            label_grid([])

    @pytest.mark.parametrize(
        ("side", "shown"), [(16, 128), (100, 200), (128, 128), (256, 256), (512, 256), (1024, 256)]
    )
    def test_tiles_are_scaled_to_be_seen(self, side, shown):
        sheet = label_grid([Cell(solid((side, side)))])
        assert sheet.size[1] == shown + 2 * GAP

    def test_titles_wrap_within_the_width(self):
        for title in ("smile AND " * 40 + "hat", "W" * 300, "größe 😀 日本語 " * 20):
            sheet = label_grid([Cell(solid())], title=title)
            assert dark(sheet, (GAP, 0, sheet.width - GAP, 60)) > 100
            assert dark(sheet, (sheet.width - GAP + 2, 0, sheet.width, sheet.height - 128 - 2 * GAP)) == 0
        tall, short = (label_grid([Cell(solid())], title=text).height for text in ("W" * 300, "W"))
        assert tall > short
        assert label_grid([Cell(solid())], title="W " * 10_000).height < 400

    def test_a_caption_stays_under_its_picture(self):
        long = label_grid([Cell(solid(), "W" * 500), Cell(solid())], columns=2)
        below = GAP + 128
        assert dark(long, (GAP, below, GAP + 128, below + CAPTION)) > 100
        assert dark(long, (GAP + 128, below, long.width, below + CAPTION)) == 0
        with_tick = label_grid([Cell(solid(), "W" * 500, True), Cell(solid(), "", True)], columns=2)
        assert dark(with_tick, (GAP + 128, below, GAP + 128 + GAP, below + CAPTION)) == 0

    def test_a_short_caption_is_not_cut(self):
        sheets = [label_grid([Cell(solid(), text)]) for text in ("P 0.123", "P 0.12...")]
        assert sheets[0].tobytes() != sheets[1].tobytes()

    def test_verdicts_differ_in_shape(self):
        sheets = [label_grid([Cell(solid(), satisfied=verdict)]).convert("L") for verdict in (True, False)]
        yes, no = (np.asarray(sheet.crop((GAP, GAP + 128, GAP + 16, GAP + 148))) < 200 for sheet in sheets)
        assert min(yes.sum(), no.sum(), (yes != no).sum()) > 15

    def test_a_mark_is_never_cut(self):
        plain, marked = (
            label_grid([Cell(solid(), "W" * 500), Cell(solid(), "W" * 500, mark=mark)]) for mark in ("", "doubtful")
        )
        below, second = GAP + 128, 2 * GAP + 128
        first = (0, 0, second - GAP, plain.height)
        assert marked.crop(first).tobytes() == plain.crop(first).tobytes()
        colours = {colour for _, colour in marked.crop((second, below, marked.width, marked.height)).getcolors(1 << 16)}
        assert ImageColor.getrgb(DOUBTFUL) in colours
        alone = label_grid([Cell(solid(), mark="doubtful")])
        assert alone.height == plain.height
        assert ImageColor.getrgb(DOUBTFUL) in {colour for _, colour in alone.getcolors(1 << 16)}

    def test_a_note_is_in_lines_below_the_caption(self):
        """All rows of a grid are as high as that with the longest note."""
        plain, noted = (
            label_grid([Cell(solid(), "P 0.1", False, note=note), Cell(solid(), "P 0.2", True)], columns=1)
            for note in ("", "no: glasses, says the judge of these faces")
        )
        assert noted.height == plain.height + 2 * 2 * NOTE_LINE
        top = GAP + 128 + CAPTION
        assert dark(noted, (GAP, top, GAP + 128, top + 2 * NOTE_LINE)) > 100
        assert dark(noted, (GAP + 128, top, noted.width, noted.height)) == 0
        long = label_grid([Cell(solid(), note="W " * 500)])
        assert long.height == label_grid([Cell(solid(), note="W " * 50)]).height

    def test_a_footer_is_below(self):
        plain, footed = label_grid([Cell(solid())]), label_grid([Cell(solid())], footer="model tiny")
        assert footed.height > plain.height
        assert dark(footed, (0, plain.height - GAP // 2, footed.width, footed.height)) > 20


class TestFonts:
    def test_letters_that_no_font_has(self, monkeypatch):
        monkeypatch.setattr(pictures, "FONTS", ("none.ttf",))
        with pytest.warns(UserWarning, match="boxes for letters .* ENERGYQL_FONT"):
            label_grid([Cell(solid())], title="улыбка")

    @pytest.mark.parametrize("named", [True, False])
    def test_other_letters_are_those_of_another_font(self, monkeypatch, recwarn, named):
        font = "DejaVuSans.ttf"
        try:
            ImageFont.truetype(font)
        except OSError:
            pytest.skip(f"this system has no {font}")
        monkeypatch.setenv("ENERGYQL_FONT", font if named else "")
        monkeypatch.setattr(pictures, "FONTS", () if named else (font,))
        found = [np.asarray(label_grid([Cell(solid(), text)])) for text in ("д", "й")]
        assert (found[0] != found[1]).any()  # two boxes would be alike
        assert not recwarn.list

    def test_latin_letters_keep_the_font_of_pillow(self, monkeypatch):
        monkeypatch.setattr(pictures, "FONTS", ("DejaVuSans.ttf",))
        assert font_for("größe ß", 12).getname() == ImageFont.load_default(12).getname()

    def test_what_is_no_font(self, monkeypatch):
        monkeypatch.setenv("ENERGYQL_FONT", __file__)
        with pytest.raises(ArgumentError, match="is no font that can be read\nENERGYQL_FONT names a file"):
            label_grid([Cell(solid())])


class TestUri:
    @pytest.mark.parametrize(
        ("size", "shown", "kind"),
        [((128, 96), (128, 96), "WEBP"), ((800, 200), (512, 128), "WEBP"), ((16, 8), (16, 8), "PNG")],
    )
    def test_size_and_kind(self, size, shown, kind):
        picture = decode(picture_uri(solid(size), 512))
        assert (picture.size, picture.format) == (shown, kind)
        assert np.abs(np.asarray(picture.convert("RGB"), int) - RED).max() < 12

    def test_a_line_keeps_its_width(self):
        assert decode(picture_uri(solid((4000, 2)), 512)).size == (512, 1)
