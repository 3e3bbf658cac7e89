-- Requests answered with success, bytes of all answers, errors of any kind; see src/nginx.rs.
done = function(summary)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print("measured " .. summary.requests - errors.status .. " " .. summary.bytes .. " " .. failed)
end
