//! Tests of other modules, each once more with TLS between client and gateway: their clients speak through a relay that is a client of TLS. What
//! they say of bodies, closes, deadlines, tunnels and calls holds there too.

use super::secure::over_tls;

macro_rules! over_tls {
    ($( $module:ident { $($test:ident)+ } )+) => {
        $( mod $module { $(
            #[test]
            fn $test() {
                super::over_tls(super::super::$module::$test);
            }
        )+ } )+
    };
}

over_tls! {
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
        a_head_that_trickles_is_cut
        a_connection_that_was_at_rest_serves_on
        a_client_that_does_not_read_keeps_its_answer_however_long_that_takes
        an_idle_connection_is_closed
        a_drain_gives_up_in_time
        one_address_has_no_more_connections_than_it_may
    }
    faults {
        every_fault_says_what_failed
        an_exchange_that_stands_still_is_answered_with_504
        a_client_that_stalls_is_not_the_services_fault
    }
    framing {
        the_backend_gets_what_is_sound_and_nothing_else
    }
    grpc_calls {
        unary_calls_carry_metadata_both_ways
        messages_may_be_large
        a_hundred_calls_share_a_connection
        streams_flow_each_way_and_both_at_once
        errors_arrive_with_their_details
        a_deadline_ends_the_call_at_the_gateway
        the_backend_sees_that_the_client_cancels
        an_endless_stream_waits_for_its_reader
    }
    http2 {
        many_streams_of_one_connection_are_answered
        refusals_are_told_over_http2_too
        a_service_may_speak_http2
        a_stream_that_is_reset_resets_the_request_to_the_backend
        a_stream_that_stands_still_is_told_and_the_others_go_on
        an_idle_connection_is_told_to_go
        a_drain_answers_what_is_under_way_and_takes_nothing_else
    }
    http2_floods {
        rapid_resets_end_the_connection
        answers_that_nobody_reads_are_bounded
        streams_without_a_window_are_ended_and_their_backends_let_go
    }
    http2_inputs {
        frames_stand_where_they_may
    }
    listeners {
        connections_are_spread_over_the_workers
    }
    refusals {
        a_refusal_waits_for_the_answers_before_it
        an_answer_arrives_though_the_client_is_still_sending
        nobody_is_waited_for_for_ever
        a_flaw_within_a_body_breaks_it_off
        a_refusal_is_counted_and_logged
        what_follows_the_last_request_is_nobodys_concern
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
