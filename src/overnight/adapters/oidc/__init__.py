"""Bearer tokens of an OpenID Connect provider, such as Entra ID; needs the extra ``oidc``."""
