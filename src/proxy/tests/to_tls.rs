//! Tests of other modules, each once more with TLS between the gateway and its backends: what they say of bodies, closes, deadlines, retries,
//! tunnels and calls holds there too.

use super::tls_front::with_tls_to_backends;

macro_rules! to_tls {
    ($( $module:ident { $($test:ident)+ } )+) => {
        $( mod $module { $(
            #[test]
            fn $test() {
                super::with_tls_to_backends(super::super::$module::$test);
            }
        )+ } )+
    };
}

to_tls! {
    bodies {
        a_chunk_passes_before_the_next_is_made
        a_request_chunk_passes_before_the_next_is_sent
        a_broken_request_body_aborts_the_upstream_request
        a_client_that_leaves_closes_the_upstream_connection
        an_early_answer_leaves_no_dirty_connection
        a_body_goes_on_after_the_answer_began
        an_answer_that_breaks_off_is_not_made_whole
        lengths_and_heads_without_bodies_pass_as_they_are
        trailers_pass_where_they_are_announced
        a_connection_is_kept_after_trailers
        a_client_that_expects_100_gets_it_where_the_backend_does_not_know_it_too
        trailers_are_announced_only_where_they_can_follow
        the_backend_decides_whether_a_body_is_asked_for
    }
    connections {
        connections_are_kept_on_both_sides
        a_stale_connection_is_repeated_where_that_is_safe
    }
    grpc_calls {
        unary_calls_carry_metadata_both_ways
        calls_are_mirrored_to_services_that_carry_them
        messages_may_be_large
        a_hundred_calls_share_a_connection
        streams_flow_each_way_and_both_at_once
        errors_arrive_with_their_details
        a_deadline_ends_the_call_at_the_gateway
        the_backend_sees_that_the_client_cancels
        an_endless_stream_waits_for_its_reader
    }
    http2 {
        a_service_may_speak_http2
        a_connection_that_ended_is_replaced
        streams_past_the_limit_of_the_backend_get_another_connection
        a_stream_that_is_reset_resets_the_request_to_the_backend
    }
    mirrors {
        a_chunked_body_is_copied_with_its_trailers
        a_mirror_that_lags_is_dropped_and_the_request_goes_on
        a_copy_of_a_request_that_breaks_off_breaks_off
    }
    retries {
        a_code_is_retried_whatever_the_method_and_others_are_not
        a_connection_that_breaks_is_retried_for_idempotent_methods_alone
        a_body_that_has_only_begun_goes_on_with_the_next_try
    }
    tunnels {
        a_websocket_passes_and_outlives_the_table
        a_websocket_passes_over_a_stream_of_http2
        a_tunnel_opens_only_after_the_right_101
        bytes_that_came_before_the_101_reach_nobody
        other_protocols_pass_and_end_with_either_side
        a_silent_tunnel_ends
    }
}
