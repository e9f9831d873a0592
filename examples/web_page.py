"""Many queries on one web page: pictures, verdicts, the probability of each clause, and the compiled circuit.

The page is one file that loads nothing: open it from disk, send it, put it on any server.
"""

from common import options

import energyql

QUERIES = {
    "No glasses, no beard": "smile AND NOT (glasses OR beard)",
    "Elder": "long_hair AND beard AND hair = gray AND hat AND sunglasses",
    "Two moods": "((smile AND hat) OR (frown AND glasses)) AND NOT (beard OR moustache)",
    "One of two": "beard XOR long_hair",
    "Any two": "AT LEAST 2 OF (glasses, beard, hat) AND smile",
    "Numbers": "0.2 < skin_tone < 0.5 AND hair IN {gray, black} AND background > 0.6",
    "Weights": "2 * smile AND 0.5 * (beard OR moustache)",
    "A rule": "glasses IMPLIES hat AND beard",
}

args = options(__doc__)

gallery = energyql.Gallery(QUERIES, n=args.n // 2, title="Avatars by query", model=args.model)
gallery.add_truth_table("smile", "glasses", n=args.n // 4)

print(gallery.summary())
print(gallery.save(args.out / "web_page.html"))
