# Varnish on a backend host, whose content costs less while the host is under load
# (agent.load): the application is told at level 2 (warning), and nothing is asked of it at
# level 3 (critical), or when no agent answers. What is in the cache is served at any level.
#
# Each level is a backend that nothing is fetched from: its probe is 404 from that level on.
# Two of three probes decide, so that an agent may start again.

vcl 4.1;

import std;

backend default {
    .host = "::1";
    .port = "8080";
}

backend level2 {
    .host = "::1";
    .port = "8056"; # http.agent
    .probe = {.url = "/level2"; .interval = 1s; .timeout = 1s; .window = 3; .threshold = 2; .initial = 3;}
}

backend level3 {
    .host = "::1";
    .port = "8056";
    .probe = {.url = "/level3"; .interval = 1s; .timeout = 1s; .window = 3; .threshold = 2; .initial = 3;}
}

sub vcl_recv {
    set req.backend_hint = default;
    if (std.healthy(level2)) {
        set req.http.Razor-Level = "1";
    } else if (std.healthy(level3)) {
        set req.http.Razor-Level = "2";
    } else {
        set req.http.Razor-Level = "3";
    }
}

# Light and full content are not mixed up.
sub vcl_hash {
    if (req.http.Razor-Level == "2") {
        hash_data("light");
    }
}

# Who waits for it gets 503.
sub vcl_backend_fetch {
    if (bereq.http.Razor-Level == "3") {
        return (abandon);
    }
}

sub vcl_synth {
    if (resp.status == 503 && req.http.Razor-Level == "3") {
        set resp.http.Retry-After = "5";
    }
}
