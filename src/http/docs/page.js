SwaggerUIBundle({
  dom_id: "#page",
  url: "openapi.yaml",
  deepLinking: true,
  displayRequestDuration: true,
  // The operations are what people come for.
  defaultModelsExpandDepth: 0,
  // The contract is linted where it is written. By default the page would send its address to a validator elsewhere.
  validatorUrl: null,
});
