"""From a query and a model to pictures: arguments, the model, the prepared query, the result."""
