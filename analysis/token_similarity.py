"""The paper's look inside: cosine similarity of class and distillation token, layer by layer. Sweep: tokens."""

from deit_ablate.report.tables.tokens import groups, similarities, tokens_table
from deit_ablate.report.write import run_as_script

SWEEPS = ("tokens",)


def table(summary):
    return tokens_table(similarities(summary.store, groups(summary.plan)))


def figures(summary):
    from deit_ablate.report.figures.tokens import tokens_figure

    return {"token_similarity": tokens_figure(similarities(summary.store, groups(summary.plan)))}


if __name__ == "__main__":
    run_as_script(table)
