"""Write and execute docs/first-finding.ipynb from a store: python docs/make_notebook.py [demo.duckdb]"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
CELLS = [
    "# A first finding\n\nFrom a store to a claim one can defend, in SQL and pandas. The store is the one that `make demo` makes: "
    "the shipped Mixtral on held-out text of five domains.",
    "import moescope\n\nstore = moescope.open('demo.duckdb')\n"
    "store.sql('select run, name, status, decisions, tokens from runs').df()",
    "Is every expert used? `load_balance` has one row per router; even load would be 3 bits of 3.",
    "RUN = 0\nstore.sql('select layer, entropy_bits, max_bits, busiest, busiest_share, dead from load_balance '\n"
    "          'where run = ? order by layer', [RUN]).df().round(3)",
    "Load is near even, so if an expert has a favourite domain it must give up others. `label_load` sets each expert's share of a "
    "domain's assignments (`share`) beside its share of all (`overall`), which is what chance gives.",
    "ratios = store.sql('''\n    select layer, expert, label, share / overall as ratio from label_load\n"
    "    where run = ? and kind = 'domain'\n''', [RUN]).df()\n"
    "ratios.pivot_table(index=['layer', 'expert'], columns='label', values='ratio').round(2)",
    "Some ratios are large. But a few documents could make them, and documents are what was sampled, not tokens. So: how much does "
    "the first expert tell of the domain (bits), and how much would it if domains were dealt to documents at random?",
    "import numpy as np\n\ncounts = store.sql('''\n    select layer, document, domain, expert, count(*) as n from routing\n"
    "    where run = ? and rank = 0 group by all\n''', [RUN]).df()\n\n"
    "def information(layer, domains):\n    rows = counts[counts.layer == layer]\n"
    "    table = np.zeros((domains.max() + 1, rows.expert.max() + 1))\n"
    "    np.add.at(table, (domains[rows.document.cat.codes], rows.expert), rows.n)\n"
    "    p = table / table.sum()\n    expected = p.sum(1, keepdims=True) * p.sum(0)\n"
    "    return (p[p > 0] * np.log2(p[p > 0] / expected[p > 0])).sum()\n\n"
    "counts['document'] = counts.document.astype('category')\n"
    "by_document = counts.groupby('document', observed=True).domain.first().astype('category').cat.codes.to_numpy()",
    "import pandas as pd\n\nrandom = np.random.default_rng(0)\nresult = []\nfor layer in sorted(counts.layer.unique()):\n"
    "    null = [information(layer, random.permutation(by_document)) for _ in range(200)]\n"
    "    seen = information(layer, by_document)\n"
    "    result.append({'layer': layer, 'bits': seen, 'null mean': np.mean(null), 'null 95 %': np.quantile(null, .95),\n"
    "                   'p': (1 + np.sum(np.array(null) >= seen)) / 201})\npd.DataFrame(result).round(3)",
    "Every layer knows the domain better than documents dealt at random would let it, and the later layers much better. What does "
    "the most one-sided expert read?",
    "layer, expert, label = ratios.loc[ratios.ratio.idxmax(), ['layer', 'expert', 'label']]\n"
    "print(f'layer {layer}, expert {expert}: {label}')\n"
    "store.sql('''\n    select text, count(*) as n, round(avg(weight), 2) as weight, list(distinct domain) as domains from routing\n"
    "    where run = ? and layer = ? and expert = ? and rank = 0 group by text order by n desc limit 12\n"
    "''', [RUN, int(layer), int(expert)]).df()",
    "One of those tokens, through all layers, with what the router thought of the alternatives:",
    "token = store.rows('select min(token) from routing where run = ? and layer = ? and expert = ? and rank = 0 and position > 20',\n"
    "                   [RUN, int(layer), int(expert)])[0][0]\n"
    "store.sql('''\n    select r.layer, a.rank, a.expert, a.weight, d.entropy, d.margin from assignments a\n"
    "    join decisions d using (forward, router, iteration, token) join routers r on r.router = a.router\n"
    "    where a.token = ? order by r.layer, a.rank\n''', [token]).df().round(3)",
    "Domain is told by the tokens themselves too: an expert may read words, not topics. `moescope analyze syntax demo.duckdb` asks "
    "the same question given the token, with nulls and intervals.",
]


def main(store: Path) -> None:
    """Build, run, save."""
    cells = [
        nbformat.v4.new_code_cell(c) if (n % 2 and n < 8) or n in (8, 10, 12) else nbformat.v4.new_markdown_cell(c)
        for n, c in enumerate(CELLS)
    ]
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(store.resolve().parent)}}).execute()
    for number, cell in enumerate(book.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
    nbformat.write(book, HERE / "first-finding.ipynb")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo.duckdb"))
