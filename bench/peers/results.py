"""Figures of the rounds, kept in a JSON file from call to call, and the table made of them."""

import json
import os
import statistics
from pathlib import Path

INTRODUCTION = """# Lathe beside its peers on {cpu}, {isa}, {threads} threads

Both sides run in turn with the same model, file, threads and dtype; a figure is the median of the rounds, a ratio the median of the rounds'
ratios, so that both sides see the machine's moods. Rounds in which other processes, or other guests of the host, took more than 5 % of a
core do not count, where there are others. A ratio above 1 means that Lathe is ahead: faster, or in less time or memory.
The limit is the most that `lathe-bench` measured in these rounds: the peak of arithmetic in registers, for a training step ÷ the operations of its products; for an
answer, how often a loop on the same threads that does nothing else reads the weights' bytes. Made by

    {command}

"""


class Results:
    def __init__(self, path):
        self.path = Path(path)
        self.document = json.loads(self.path.read_text()) if self.path.exists() else {"rows": {}}

    def forget(self, comparison):
        self.document["rows"] = {key: row for key, row in self.document["rows"].items() if row["comparison"] != comparison}

    def add(self, comparison, peer, command, rows, others=0.0):
        """One round's rows: {"work", "unit", "lathe", "peer", "less_is_better", "limit"}. `others`: what other processes took of a core meanwhile."""
        for row in rows:
            kept = self.document["rows"].setdefault(f"{comparison}: {row['work']}", {
                "comparison": comparison, "work": row["work"], "unit": row["unit"], "less_is_better": row.get("less_is_better", False), "rounds": []})
            kept["peer"], kept["command"] = row.get("peer_name", peer), command
            figures = {"lathe": row["lathe"], "peer": row["peer"], "others": round(others, 3)}
            if row.get("limit"):
                figures["limit"] = row["limit"]
            kept["rounds"].append(figures)
        self.save()

    def save(self):
        written = self.path.with_suffix(".tmp")
        written.write_text(json.dumps(self.document, indent=1) + "\n")
        os.replace(written, self.path)

    def describe(self, **facts):
        self.document.update(facts)

    def markdown(self, order):
        document = self.document
        text = INTRODUCTION.format(**{name: document[name] for name in ("cpu", "isa", "threads", "command")})
        text += "| work | unit | Lathe | peer | | ratio | of the limit | rounds |\n|---|---|---|---|---|---|---|---|\n"
        rows = sorted(document["rows"].values(), key=lambda row: order.index(row["comparison"]) if row["comparison"] in order else len(order))
        for row in rows:
            text += "| {} |\n".format(" | ".join(cells_of(row)))
        text += "\nVersions: " + ", ".join(f"{name} {version}" for name, version in document["versions"].items()) + ".\n"
        text += "\nWhat was run, for Lathe:\n\n"
        seen = set()
        for row in rows:
            if row["command"] not in seen:
                seen.add(row["command"])
                text += f"    {row['command']}\n"
        return text


DISTURBED = 0.05  # of a core, taken by others


def counted(rounds):
    """The rounds that nothing disturbed, or where there is none the least disturbed one."""
    quiet = [figures for figures in rounds if figures["others"] <= DISTURBED]
    return quiet or [min(rounds, key=lambda figures: figures["others"])]


def cells_of(row):
    rounds = counted(row["rounds"])
    lathe, peer = ([figures[side] for figures in rounds] for side in ("lathe", "peer"))
    ratios = [theirs / ours if row["less_is_better"] else ours / theirs for ours, theirs in zip(lathe, peer)]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    # The machine's, and so the highest counts.
    limits = [figures["limit"] for figures in row["rounds"] if "limit" in figures]
    limit = f"{100 * statistics.median(lathe) / max(limits):.0f} %" if limits else ""
    disturbed = " (disturbed)" if rounds[0]["others"] > DISTURBED else ""
    return [row["work"], row["unit"], rounded(statistics.median(lathe)), rounded(statistics.median(peer)), row["peer"],
            f"{statistics.median(ratios):.2f}{spread}", limit, f"{len(ratios)}{disturbed}"]


def rounded(figure):
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"
