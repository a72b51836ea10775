"""Where the repository is, and what lets one into the dashboards that tests serve."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TOKEN = "open-sesame+/="
