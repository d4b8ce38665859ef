"""One or several indexes behind HTTP: `retriever serve`."""
