//! The methods that are served: one row for each RPC of `portcullis.v1`.
//!
//! Routing, admission, health and reflection read this table, so that a new method takes one row.
//!
//! Invariant: every RPC of the descriptors has exactly one row, and every row is an RPC.
//! Not here: what a method does (a file for each service).

/// A method's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The path of its requests.
    pub path: &'static str,
    /// The service that it belongs to.
    pub service: Service,
    /// Where it runs.
    pub lane: Lane,
    /// Whether it changes stored data.
    pub effect: Effect,
    /// What its caller must be allowed.
    pub needs: Needs,
}

/// Where a method runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// On the thread of its connection: it never takes long.
    Connection,
    /// On the administration runtime, where it delays no Check.
    Administration,
}

/// Whether a method changes stored data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Reads,
    /// It changes the policy, sessions or the audit log.
    Mutates,
}

/// What the caller of a method must be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: everybody who can connect may call it.
    Nothing,
}

/// Which limit on calls under way a service shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// That of Checks.
    Checks,
    /// That of administration, which never takes room from Checks.
    Administration,
}

/// Declares services and their methods. Names are spelled once, as the protocol files have them.
macro_rules! methods {
    ($($service:ident = $name:literal, $limit:ident { $($method:ident $lane:ident $effect:ident $needs:ident)* })*) => {
        /// A service.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Service {
            $(#[doc = concat!("`", $name, "`.")] $service,)*
        }

        impl Service {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$service),*];

            /// Its full name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$service => $name,)*
                }
            }

            /// The limit on its calls.
            pub const fn limit(self) -> Limit {
                match self {
                    $(Self::$service => Limit::$limit,)*
                }
            }
        }

        /// All methods of `portcullis.v1`, the most frequent first.
        pub const METHODS: &[Method] = &[$($(Method {
            path: concat!("/", $name, "/", stringify!($method)),
            service: Service::$service,
            lane: Lane::$lane,
            effect: Effect::$effect,
            needs: Needs::$needs,
        },)*)*];
    };
}

methods! {
    Decision = "portcullis.v1.DecisionService", Checks {
        Check              Connection     Mutates Nothing
        StreamCheck        Connection     Mutates Nothing
        EndSession         Connection     Mutates Nothing
        // These two may have thousands of entries.
        BatchCheck         Administration Mutates Nothing
        RenewSessions      Administration Mutates Nothing
    }
    Firewall = "portcullis.v1.FirewallService", Administration {
        CreateRule         Administration Mutates Nothing
        GetRule            Administration Reads   Nothing
        ListRules          Administration Reads   Nothing
        UpdateRule         Administration Mutates Nothing
        DeleteRule         Administration Mutates Nothing
        ReorderRules       Administration Mutates Nothing
        MoveRule           Administration Mutates Nothing
        ReplaceRules       Administration Mutates Nothing
        CreateAddressGroup Administration Mutates Nothing
        GetAddressGroup    Administration Reads   Nothing
        ListAddressGroups  Administration Reads   Nothing
        UpdateAddressGroup Administration Mutates Nothing
        DeleteAddressGroup Administration Mutates Nothing
        AddRanges          Administration Mutates Nothing
        RemoveRanges       Administration Mutates Nothing
        ListRanges         Administration Reads   Nothing
        ReplaceRanges      Administration Mutates Nothing
        PatchRanges        Administration Mutates Nothing
    }
    Hierarchy = "portcullis.v1.HierarchyService", Administration {
        CreateNode          Administration Mutates Nothing
        GetNode             Administration Reads   Nothing
        ListNodes           Administration Reads   Nothing
        UpdateNode          Administration Mutates Nothing
        DeleteNode          Administration Mutates Nothing
        AddAccessEntries    Administration Mutates Nothing
        RemoveAccessEntries Administration Mutates Nothing
        GetEffectiveAccess  Administration Reads   Nothing
        ListPermittedRanges Administration Reads   Nothing
    }
    Audit = "portcullis.v1.AuditService", Administration {
        GetOverview         Administration Reads   Nothing
        ListSessions        Administration Reads   Nothing
        ListFirewallEvents  Administration Reads   Nothing
        ListAuditRecords    Administration Reads   Nothing
        WatchEvents         Administration Reads   Nothing
        GetCheckpoint       Administration Reads   Nothing
        GetInclusionProof   Administration Reads   Nothing
        GetConsistencyProof Administration Reads   Nothing
        VerifyAudit         Administration Reads   Nothing
        EraseUser           Administration Mutates Nothing
    }
    Analysis = "portcullis.v1.AnalysisService", Administration {
        Explain             Administration Reads   Nothing
        ListProblems        Administration Reads   Nothing
        PreviewChange       Administration Reads   Nothing
        ListRevisions       Administration Reads   Nothing
        GetRevision         Administration Reads   Nothing
        CompareRevisions    Administration Reads   Nothing
        ConfirmRevision     Administration Mutates Nothing
        RollbackRevision    Administration Mutates Nothing
        ExportPolicy        Administration Reads   Nothing
        ApplyPolicy         Administration Mutates Nothing
        SetShadowPolicy     Administration Mutates Nothing
        GetShadowPolicy     Administration Reads   Nothing
        DeleteShadowPolicy  Administration Mutates Nothing
        PromoteShadowPolicy Administration Mutates Nothing
        ListDivergences     Administration Reads   Nothing
        WatchDivergences    Administration Reads   Nothing
        CreatePolicyTest    Administration Mutates Nothing
        ListPolicyTests     Administration Reads   Nothing
        DeletePolicyTest    Administration Mutates Nothing
    }
    Maintenance = "portcullis.v1.MaintenanceService", Administration {
        Backup              Administration Reads   Nothing
    }
}

/// The path of a Check.
#[expect(clippy::indexing_slicing, reason = "while compiling")]
pub const CHECK: &str = METHODS[0].path;

/// The path of a stream of Checks.
#[expect(clippy::indexing_slicing, reason = "while compiling")]
pub const STREAM_CHECK: &str = METHODS[1].path;

impl Lane {
    /// Where a call runs. Health, reflection and unknown methods run where they delay no Check.
    pub fn of(path: &str) -> Self {
        METHODS.iter().find(|method| method.path == path).map_or(Self::Administration, |method| method.lane)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message;
    use prost_types::{FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto};

    use super::*;

    const PACKAGE: &str = "portcullis.v1";

    /// Methods that mutate something and take no change options, each with its reason.
    const WITHOUT_OPTIONS: &[(&str, &str)] = &[
        ("/portcullis.v1.DecisionService/Check", "decides; that it opens a session follows from the decision"),
        ("/portcullis.v1.DecisionService/StreamCheck", "many Checks"),
        ("/portcullis.v1.DecisionService/BatchCheck", "many Checks"),
        ("/portcullis.v1.DecisionService/EndSession", "ends a session and leaves the policy alone"),
        ("/portcullis.v1.DecisionService/RenewSessions", "keeps sessions alive and leaves the policy alone"),
        ("/portcullis.v1.AuditService/EraseUser", "erases personal data, which no option could bring back"),
    ];

    fn files() -> Vec<FileDescriptorProto> {
        let set = FileDescriptorSet::decode(crate::proto::DESCRIPTOR).unwrap();
        set.file.into_iter().filter(|file| file.package() == PACKAGE).collect()
    }

    /// Every RPC by its path, with its service.
    fn rpcs() -> BTreeMap<String, (String, MethodDescriptorProto)> {
        let files = files();
        let services = files.iter().flat_map(|file| &file.service);
        let of_service = services.flat_map(|service| {
            let name = format!("{PACKAGE}.{}", service.name());
            service
                .method
                .iter()
                .map(move |method| (format!("/{name}/{}", method.name()), (name.clone(), method.clone())))
        });
        of_service.collect()
    }

    #[test]
    fn every_rpc_has_one_row_and_every_row_is_an_rpc() {
        let rpcs = rpcs();
        for (path, (service, _)) in &rpcs {
            let rows: Vec<&Method> = METHODS.iter().filter(|method| method.path == path).collect();
            assert_eq!(rows.len(), 1, "rows of {path}");
            assert_eq!(rows[0].service.name(), service);
        }
        assert_eq!(METHODS.len(), rpcs.len(), "rows that are no RPC");
    }

    #[test]
    fn what_mutates_takes_change_options_or_says_why_not_and_what_reads_takes_none() {
        let rpcs = rpcs();
        let takes_options = |path: &str| {
            let input = rpcs[path].1.input_type().to_owned();
            let files = files();
            let mut messages = files.iter().flat_map(|file| &file.message_type);
            let message = messages.find(|message| input == format!(".{PACKAGE}.{}", message.name())).unwrap();
            message.field.iter().any(|field| field.name() == "options")
        };
        for Method { path, effect, .. } in METHODS {
            let is_exception = WITHOUT_OPTIONS.iter().any(|(exception, _)| exception == path);
            assert_eq!(takes_options(path), *effect == Effect::Mutates && !is_exception, "options of {path}");
        }
        assert!(WITHOUT_OPTIONS.iter().all(|(path, _)| rpcs.contains_key(*path)));
    }

    #[test]
    fn what_a_portal_asks_stays_on_its_thread_unless_it_is_long() {
        let connection: Vec<&str> =
            METHODS.iter().filter(|method| method.lane == Lane::Connection).map(|method| method.path).collect();
        assert_eq!(connection, [CHECK, STREAM_CHECK, "/portcullis.v1.DecisionService/EndSession"]);
        assert_eq!(CHECK, "/portcullis.v1.DecisionService/Check");
        assert_eq!(STREAM_CHECK, "/portcullis.v1.DecisionService/StreamCheck");
        assert_eq!(Lane::of("/grpc.health.v1.Health/Check"), Lane::Administration);
    }
}
