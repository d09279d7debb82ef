//! How a service is served: each call goes to the method of the same name that `Api` has.
//!
//! Invariant: a method that changes something gets its caller.
//! Not here: what the methods do (a file for each kind of resource).

/// Implements a service. A method `changes` something for its caller, `waits` for what it answers, or answers `at_once`.
macro_rules! serve {
    (@call $api:ident, $request:ident, changes $method:ident) => {
        $api.$method(Caller::of(&$request)?, $request.into_inner()).await
    };
    (@call $api:ident, $request:ident, waits $method:ident) => { $api.$method($request.into_inner()).await };
    (@call $api:ident, $request:ident, at_once $method:ident) => { $api.$method($request.into_inner()) };
    ($service:ident $(, type $stream:ident = $stream_type:ty)* {
        $($kind:ident $method:ident($asked:ty) -> $answer:ty;)*
    }) => {
        #[tonic::async_trait]
        impl $service for Api {
            $(type $stream = $stream_type;)*
            $(
                async fn $method(&self, request: Request<$asked>) -> Result<Response<$answer>, Status> {
                    let api = self;
                    serve!(@call api, request, $kind $method)
                }
            )*
        }
    };
}

pub(super) use serve;
