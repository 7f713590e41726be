"""Real attacks on real models, as an outsider would run them.

Over HTTP, with no import of Guard's codecs or defences.
"""
