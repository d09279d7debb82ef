//! FirewallService (design.md §3.3): which call goes where.
//!
//! Invariant: every call of the service is here, and none does anything by itself.
//! Not here: rules (`rules`) and address groups (`groups`).

use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::caller::Caller;
use crate::proto::v1::firewall_service_server::FirewallService;
use crate::proto::v1::{
    AddRangesRequest, AddressGroup, CreateAddressGroupRequest, CreateRuleRequest, DeleteAddressGroupRequest,
    DeleteRuleRequest, GetAddressGroupRequest, GetRuleRequest, ListAddressGroupsRequest, ListAddressGroupsResponse,
    ListRangesRequest, ListRangesResponse, ListRulesRequest, ListRulesResponse, MoveRuleRequest, RemoveRangesRequest,
    ReorderRulesRequest, ReorderRulesResponse, ReplaceRangesRequest, ReplaceRulesRequest, ReplaceRulesResponse, Rule,
    UpdateAddressGroupRequest, UpdateRuleRequest,
};

#[tonic::async_trait]
impl FirewallService for Api {
    async fn create_rule(&self, request: Request<CreateRuleRequest>) -> Result<Response<Rule>, Status> {
        self.create_rule(Caller::of(&request)?, request.into_inner()).await
    }

    async fn get_rule(&self, request: Request<GetRuleRequest>) -> Result<Response<Rule>, Status> {
        self.get_rule(request.into_inner())
    }

    async fn list_rules(&self, request: Request<ListRulesRequest>) -> Result<Response<ListRulesResponse>, Status> {
        self.list_rules(request.into_inner())
    }

    async fn update_rule(&self, request: Request<UpdateRuleRequest>) -> Result<Response<Rule>, Status> {
        self.update_rule(Caller::of(&request)?, request.into_inner()).await
    }

    async fn delete_rule(&self, request: Request<DeleteRuleRequest>) -> Result<Response<()>, Status> {
        self.delete_rule(Caller::of(&request)?, request.into_inner()).await
    }

    async fn reorder_rules(
        &self,
        request: Request<ReorderRulesRequest>,
    ) -> Result<Response<ReorderRulesResponse>, Status> {
        self.reorder_rules(Caller::of(&request)?, request.into_inner()).await
    }

    async fn move_rule(&self, request: Request<MoveRuleRequest>) -> Result<Response<Rule>, Status> {
        self.move_rule(Caller::of(&request)?, request.into_inner()).await
    }

    async fn replace_rules(
        &self,
        request: Request<ReplaceRulesRequest>,
    ) -> Result<Response<ReplaceRulesResponse>, Status> {
        self.replace_rules(Caller::of(&request)?, request.into_inner()).await
    }

    async fn create_address_group(
        &self,
        request: Request<CreateAddressGroupRequest>,
    ) -> Result<Response<AddressGroup>, Status> {
        self.create_group(Caller::of(&request)?, request.into_inner()).await
    }

    async fn get_address_group(
        &self,
        request: Request<GetAddressGroupRequest>,
    ) -> Result<Response<AddressGroup>, Status> {
        self.get_group(&request.into_inner())
    }

    async fn list_address_groups(
        &self,
        request: Request<ListAddressGroupsRequest>,
    ) -> Result<Response<ListAddressGroupsResponse>, Status> {
        self.list_groups(request.into_inner())
    }

    async fn update_address_group(
        &self,
        request: Request<UpdateAddressGroupRequest>,
    ) -> Result<Response<AddressGroup>, Status> {
        self.update_group(Caller::of(&request)?, request.into_inner()).await
    }

    async fn delete_address_group(&self, request: Request<DeleteAddressGroupRequest>) -> Result<Response<()>, Status> {
        self.delete_group(Caller::of(&request)?, request.into_inner()).await
    }

    async fn add_ranges(&self, request: Request<AddRangesRequest>) -> Result<Response<AddressGroup>, Status> {
        self.add_ranges(Caller::of(&request)?, request.into_inner()).await
    }

    async fn remove_ranges(&self, request: Request<RemoveRangesRequest>) -> Result<Response<AddressGroup>, Status> {
        self.remove_ranges(Caller::of(&request)?, request.into_inner()).await
    }

    async fn list_ranges(&self, request: Request<ListRangesRequest>) -> Result<Response<ListRangesResponse>, Status> {
        self.list_ranges(request.into_inner())
    }

    async fn replace_ranges(
        &self,
        request: Request<Streaming<ReplaceRangesRequest>>,
    ) -> Result<Response<AddressGroup>, Status> {
        self.replace_ranges(Caller::of(&request)?, request.into_inner()).await
    }
}
