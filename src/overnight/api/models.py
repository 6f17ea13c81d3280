"""Routes that show what can be named as a model."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from overnight.api.context import Context, reply
from overnight.api.schemas import DeploymentList, DeploymentObject, ModelList, ModelObject
from overnight.domain.deployment import Deployment
from overnight.domain.errors import NotFound


def model_routes(context: Context) -> APIRouter:
    """Make the routes of models for one prefix."""
    routes = APIRouter()

    @routes.get("/models", response_model=ModelList)
    async def list_models(request: Request) -> Response:
        """List what a request can name as its model."""
        context.resource(request)
        known = context.services.deployments.known()
        return reply(ModelList(data=[ModelObject.of(deployment) for deployment in known.deployments]))

    @routes.get("/models/{model:path}", response_model=ModelObject)
    async def get_model(request: Request, model: str) -> Response:
        """Get one of them."""
        context.resource(request)
        return reply(ModelObject.of(_find(context, model)))

    return routes


def deployment_routes(context: Context) -> APIRouter:
    """Make Azure's routes of deployments."""
    routes = APIRouter()

    @routes.get("/deployments", response_model=DeploymentList)
    async def list_deployments(request: Request) -> Response:
        """List the deployments."""
        context.resource(request)
        known = context.services.deployments.known()
        return reply(DeploymentList(data=[DeploymentObject.of(deployment) for deployment in known.deployments]))

    @routes.get("/deployments/{deployment}", response_model=DeploymentObject)
    async def get_deployment(request: Request, deployment: str) -> Response:
        """Get a deployment."""
        context.resource(request)
        return reply(DeploymentObject.of(_find(context, deployment)))

    return routes


def _find(context: Context, name: str) -> Deployment:
    deployment = context.services.deployments.known().find(name)
    if deployment is None:
        message = f"The model '{name}' does not exist or you do not have access to it."
        raise NotFound(message, param="model", code="model_not_found")
    return deployment
