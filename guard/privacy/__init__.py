"""Differential privacy: events, filter, samplers, measurements and what may be claimed of them. No I/O.

`events` says what a mechanism costs, `gaussian` and `renyi` what that means in epsilon, `filters` adds costs up and
stops, `discrete` samples noise exactly, `measurement` binds noise to a sensitivity, `statement` words the guarantee,
`planner` plans, `oracle` asks opacus of a plan.
"""
