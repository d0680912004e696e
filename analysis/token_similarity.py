"""The paper's look inside: cosine similarity of class and distillation token, layer by layer. Sweep: tokens."""

SWEEPS = ("tokens",)


def table(results, sweep, strict=False):
    from deit_ablate.report.figures.tokens import similarities, sweep_rows, tokens_table
    from deit_ablate.store import Store

    store = Store(results)
    return tokens_table(similarities(store, sweep_rows(store, sweep)))


def figures(results, sweep):
    from deit_ablate.report.figures.tokens import similarities, sweep_rows, tokens_figure
    from deit_ablate.store import Store

    store = Store(results)
    return {"token_similarity": tokens_figure(similarities(store, sweep_rows(store, sweep)))}
