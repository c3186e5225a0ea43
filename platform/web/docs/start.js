// Shows the server's own description. Credentials that are typed in stay in this page.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#reader",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
});
