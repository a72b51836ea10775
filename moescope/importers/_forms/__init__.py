"""Forms that take more than a file to read: traces of Megatron, the recorder of SGLang, answers of servers, any table."""
