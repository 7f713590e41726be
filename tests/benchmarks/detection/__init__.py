"""How well Guard tells thieves from customers, measured on real data: see `run.py` and `report.py`."""
