"""What the held-out words are.

Gold classes by grammar (`lexical`), silver labels (`silver`), written as CoNLL-U (`label`, `conllu`).
"""
