"""Clusters of documents by their words, for runs whose data has no label of meaning.

Counts of vocabulary ids by document, TF-IDF (Sparck Jones 1972), at most 50 components (latent semantic analysis, Deerwester et
al. 1990), k-means on the directions; k is the root of half the documents, 2 to 10. A store holds no embeddings of tokens, and
clusters of token types would say nothing once the token is given: what a document is about does.
Made from the tokens alone, so that under "routing follows the token only" the clusters are as good as dealt by chance.
"""

import numpy as np
from scipy import sparse

Ints = np.ndarray
LEAST = 20  # documents
NAME = "cluster"
SAID = (
    "No label of meaning is in this run: `cluster` stands for it, {} clusters of documents by their words (TF-IDF, latent "
    "semantic analysis, k-means), made here; trace data with a domain, genre or supersense to ask about those."
)


def clusters(vocab_id: Ints, document: Ints) -> Ints | None:
    """(tokens,): cluster of the token's document, or None where documents (numbered from 0) or ids are too few or all alike."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    ids, code = np.unique(vocab_id, return_inverse=True)
    documents = int(document.max(initial=-1)) + 1
    if documents < LEAST or len(ids) < LEAST:
        return None
    counts = sparse.csr_matrix((np.ones(len(code)), (document, code)), shape=(documents, len(ids)))
    weighed = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    parts = TruncatedSVD(min(50, documents - 1, len(ids) - 1), random_state=0).fit_transform(weighed)
    count = int(np.clip(round(np.sqrt(documents / 2)), 2, 10))
    found = KMeans(count, n_init=5, random_state=0).fit_predict(normalize(parts))
    return np.asarray(found)[document] if len(np.unique(found)) > 1 else None
