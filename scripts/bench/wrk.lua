-- wrk ... -s wrk.lua URL -- FILE CONTENT-TYPE    posts one file over and over
-- wrk ... -s wrk.lua URL                         sends GETs with a pause of 1 ms, each on a connection of its own
-- The last line of the output is a JSON object with the figures, for load.py.

function init(args)
  if #args == 0 then
    wrk.headers["Connection"] = "close"
    delay = function() return 1 end
    return
  end
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  wrk.headers["Content-Type"] = args[2]
  file:close()
end

function done(summary, latency)
  local errors = summary.errors
  local failures = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  local format = '{"requests": %d, "failures": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f}'
  local seconds, p50, p99 = summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
  print(string.format(format, summary.requests, failures, seconds, p50, p99))
end
