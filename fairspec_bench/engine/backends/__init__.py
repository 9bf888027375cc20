"""How the work of a block is executed.

registry     the backends by name
base         the protocol `StepRunner`
eager        steps as they are
compiled     steps compiled by torch
cuda_graph   whole blocks recorded and replayed
rehearsal    the same recording on a CPU
"""
