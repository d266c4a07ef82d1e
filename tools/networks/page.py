"""The page of networks of other packages, made only from the raw results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.support.markdown import link, provenance, render
from tools.support.rows import read_rows

PAGE = Path("docs/networks.md")
RESULTS = Path("results/networks.jsonl")
ENVIRONMENT = ("commit", "device", "torch")
OUTCOMES = ("searched", "refused", "failed")


def networks_page() -> str:
    """Return the page, made of the results that there are."""
    rows = read_rows(RESULTS)
    count = {outcome: sum(r["outcome"] == outcome for r in rows) for outcome in OUTCOMES}
    made = {name: sorted({r["environment"][name] for r in rows}) for name in ENVIRONMENT}
    versions = sorted({f"{r['package']} {r['environment'][r['package']]}" for r in rows})
    differences = [r["difference"] for r in rows if "difference" in r]
    return render(
        "networks.md.jinja",
        rows=[(r["package"], f"`{r['name']}`", r["layers"], _alone(r), _what(r)) for r in rows],
        count=count,
        made=provenance({name: " and ".join(values) for name, values in made.items()}),
        versions=", ".join(versions),
        largest=max(differences, default=0.0),
        raw=link(RESULTS, "Raw results"),
    )


def _alone(row: Mapping[str, Any]) -> str:
    """Return how many layers are left alone for each reason, the most first."""
    counts = sorted(row["alone"].items(), key=lambda entry: -entry[1])
    return "; ".join(f"{count} {reason}" for reason, count in counts)


def _what(row: Mapping[str, Any]) -> str:
    if row["outcome"] == "searched":
        return "holds"
    return f"{row['outcome']}: {row['sentence']}".replace("|", "\\|").replace("\n", " ")
