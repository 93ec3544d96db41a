"""MOSS-Speech in plain PyTorch, float32: the oracle of every engine, and what nano is trained with.

Parameter names are exactly those of the checkpoint files (model contract A.2, D.2, E.2, F.2), so
`load_state_dict(strict=True)` is the census test.
"""
