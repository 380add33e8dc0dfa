-- Orthanc's Lua script: a mammogram comes in, its segmentation is asked for and stored beside it.
--
-- The sender waits for the answer, so this is for single films; segment.py does the same without that.
-- Orthanc's configuration:   "LuaScripts": ["/path/of/segment.lua"]
-- Environment of Orthanc:    MAMMOSEARCH_URL         the service, e.g. http://127.0.0.1:8090
--                            MAMMOSEARCH_TOKEN_FILE  the file with its token

local SEGMENTATION = '1.2.840.10008.5.1.4.1.1.66.4'

local function token()
  local file = assert(io.open(os.getenv('MAMMOSEARCH_TOKEN_FILE'), 'r'))
  local text = file:read('*a')
  file:close()
  return (text:gsub('%s', ''))
end

function OnStoredInstance(id, tags, metadata, origin)
  if tags['Modality'] ~= 'MG' or metadata['SopClassUid'] == SEGMENTATION then
    return
  end
  local headers = { ['Authorization'] = 'Bearer ' .. token(), ['Content-Type'] = 'application/dicom' }
  local film = RestApiGet('/instances/' .. id .. '/file')
  local answer = HttpPost(os.getenv('MAMMOSEARCH_URL') .. '/segment', film, headers)
  if answer == nil then
    print('MammoSearch gave no segmentation of instance ' .. id)
  else
    RestApiPost('/instances', answer)
  end
end
