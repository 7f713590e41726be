"""The lab: real models on real data that ship in Python packages, served over real HTTP."""
