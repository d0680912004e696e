"""The trainer: one recipe in, one outcome out. Start reading at ``loop.py``.

In a notebook: ``from deit_ablate.train.loop import train; outcome = train(recipe)``.
Only ``deit_ablate.worker`` imports this package, because it imports torch.
"""
