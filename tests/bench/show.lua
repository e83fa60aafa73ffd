-- GET of experiments in random order; the argument is a file with an id a line.
local paths = {}

function init(arguments)
   for id in io.lines(arguments[1]) do
      paths[#paths + 1] = wrk.format("GET", "/v1/experiments/" .. id)
   end
   math.randomseed(tonumber(tostring({}):match("0x(%x+)"), 16))
end

function request()
   return paths[math.random(#paths)]
end
