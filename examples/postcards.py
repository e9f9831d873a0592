"""Another packaged model, from another domain: landscapes on postcards. A page of several queries in one picture."""

from common import options
from PIL import Image

import energyql

QUERIES = (
    "night AND snow AND house AND NOT clouds",
    "season = autumn AND tree IN {oak, birch} AND boat AND NOT night",
    "glow > 0.75 AND height < 0.3 AND mountains AND NOT night",
    "EXACTLY 2 OF (night, clouds, boat, house) AND season != winter",
)

args = options(__doc__, model=None)
rows = []

for query in QUERIES:
    result = energyql.generate(query, n=args.n // 2, model="postcards")
    print(f"{query}: {result.summary()}")
    rows.append(result.images)

side, (columns, gap) = rows[0][0].width, (len(rows[0]), 6)
page = Image.new("RGB", (columns * (side + gap) - gap, len(rows) * (side + gap) - gap), "white")
for row, images in enumerate(rows):
    for column, image in enumerate(images):
        page.paste(image, (column * (side + gap), row * (side + gap)))
args.out.mkdir(parents=True, exist_ok=True)
page.save(args.out / "postcards.png")
