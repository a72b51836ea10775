"""The runs behind reports/beyond-text.md: `python -m specimens.systems.measures.NAME` fills its part and draws its figure."""
